"""SQLite files that tests look into."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["opened"]


@contextmanager
def opened(path: Path | str) -> Iterator[sqlite3.Connection]:
    """Open a file; what was done is committed, and the file closed, when the block ends well."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection
