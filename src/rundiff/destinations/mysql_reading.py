"""Read rows of MySQL and MariaDB: the server joins each to a line of CSV, which Arrow takes apart.

Python touches one value a row; PyMySQL alone would decode every value of every row in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from rundiff.destinations.texts import gathered, text_columns
from rundiff.errors import DestinationError

__all__ = ["streamed"]

_FETCHED = 2_000


def streamed(raw: Any, query: tuple[Sequence[str], str], place: str) -> Iterator[list[pa.Array]]:
    """Run `SELECT expressions tail` on a connection of PyMySQL, unbuffered; its errors pass through."""
    from pymysql.cursors import SSCursor  # type: ignore[import-untyped]  # it ships no type information

    expressions, tail = query
    # Every value in quotes, nulls as nothing; a null line is one that the server could not join.
    quoted = [
        f"IF({one} IS NULL, '', CONCAT('\"', REPLACE({one}, '\"', '\"\"'), '\"'))" for one in expressions
    ]
    line = f"CAST(CONCAT({', '.join(_between(quoted))}) AS BINARY)"
    with closing(raw.cursor(SSCursor)) as cursor:
        # Rows may take their time to be compared; the server would break off meanwhile.
        cursor.execute("SET SESSION net_write_timeout = 3600")
        cursor.execute(f"SELECT {line} {tail}")
        for chunk in gathered(_lines(cursor, place)):
            yield text_columns(chunk, len(expressions), place)


def _between(quoted: Sequence[str]) -> Iterator[str]:
    for number, one in enumerate(quoted):
        if number:
            yield "','"
        yield one
    yield "'\n'"


def _lines(cursor: Any, place: str) -> Iterator[bytes]:
    while rows := cursor.fetchmany(_FETCHED):
        for (line,) in rows:
            if line is None:
                raise DestinationError(
                    f"{place} can't give a row that is longer than its max_allowed_packet: raise that, then run again."
                )
            yield line
