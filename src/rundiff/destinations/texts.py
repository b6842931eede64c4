"""Rows that a database sends as lines of CSV, taken apart by Arrow: columns of text, as the database spells them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from rundiff.errors import DestinationError

__all__ = ["CHUNK_BYTES", "gathered", "text_columns"]

CHUNK_BYTES = 8 << 20
"""How much CSV becomes one batch."""


def gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines, each with its newline, to chunks of about `CHUNK_BYTES`."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def text_columns(chunk: bytes, width: int, place: str) -> list[pa.Array]:
    """Take whole lines of `width` fields apart: an empty unquoted field is null, a quoted one empty text."""
    from pyarrow import csv

    names = [str(number) for number in range(width)]
    try:
        table = csv.read_csv(
            pa.py_buffer(chunk),
            csv.ReadOptions(column_names=names, block_size=len(chunk) + 1),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        raise DestinationError(f"{place} sent rows that can't be taken apart: {error}. Run again.") from error
    return [column.combine_chunks() for column in table.columns]
