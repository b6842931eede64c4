"""The change stream as the content of files: one JSON object a line (design section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.kinds import check_kinds
from rundiff.destinations.render import change_lines
from rundiff.destinations.wholeruns import RunFormat

__all__ = ["JSON_LINES", "write_lines"]

_ROWS = 16_384
"""Rows that are rendered at once, which bounds memory."""


def write_lines(file: BinaryIO, target: Target, batch: ChangeBatch) -> None:
    """Write a line for each record of a batch."""
    for offset in range(0, batch.records.num_rows, _ROWS):
        part = batch.slice(offset, min(_ROWS, batch.records.num_rows - offset))
        for chunk in _chunks(change_lines(target, part)):
            file.write(chunk)


def _chunks(lines: pa.Array | pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """Give the bytes of lines without copying them: in Arrow they stand one after another."""
    for chunk in lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]:
        data = chunk.buffers()[2]
        if data is not None:
            yield data


class _LinesFile:
    """One file."""

    def __init__(self, stream: BinaryIO, target: Target, _: pa.StructType) -> None:
        self._stream = stream
        self._target = target

    def write(self, batch: ChangeBatch) -> None:
        """Add a line for each record."""
        write_lines(self._stream, self._target, batch)

    def end(self) -> None:
        """Write nothing more."""

    def abandon(self) -> None:
        """Do nothing: whole batches are written at once."""


def _owner(path: Path) -> str | None:
    with path.open("rb") as file:
        try:
            key = msgspec.json.decode(file.readline())["idempotency_key"]
        except (msgspec.DecodeError, LookupError, TypeError):
            return None
    return str(key).partition("/")[0]


JSON_LINES = RunFormat(
    ending=".jsonl",
    title="JSON lines",
    media_type="application/x-ndjson",
    check=check_kinds,
    begin=_LinesFile,
    owner=_owner,
)
"""The change stream, in a file for each run."""
