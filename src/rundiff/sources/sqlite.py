"""SQLite as a source: one read transaction of Python's own driver.

Each value has a type of its own (https://www.sqlite.org/datatype3.html), whatever the column declares,
so types are found by values, as of rows of mappings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path

import pyarrow as pa

from rundiff.errors import SourceError
from rundiff.sources.batches import fitting_batch, record_batch
from rundiff.sources.contract import ReadBatch, ReadEnd, ReadRequest, Unreadable
from rundiff.sources.pushdown import conditions, where
from rundiff.sources.rows import BATCH_ROWS, RowsReading
from rundiff.sources.spelling import Mask
from rundiff.sources.sqlselection import Selection, check_result, database_file
from rundiff.sqlnames import quote

__all__ = ["SqliteSource"]

_BUSY_SECONDS = 30.0


class SqliteSource:
    """A table or query of a SQLite file."""

    may_delete_without_count = True

    def __init__(self, url: str, selection: Selection) -> None:
        self._path = database_file(url, "sqlite")
        self._selection = selection.within("main")
        self.location = f"sqlite:///{self._path.as_posix()}{self._selection.identity}"

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[SqliteReading]:
        """Begin one reading; see `contract.Source`."""
        if not self._path.is_file():
            raise SourceError(f"There is no SQLite file {self._path}: name another one.")
        with _translated(self._path):
            raw = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            yield SqliteReading(raw, self._path, self._selection, request)
        finally:
            raw.close()


class SqliteReading(RowsReading):
    """One reading; a column that outgrows its type widens it, as of rows of mappings."""

    def __init__(
        self, raw: sqlite3.Connection, path: Path, selection: Selection, request: ReadRequest
    ) -> None:
        super().__init__((), request)
        self._raw, self._path, self._selection = raw, path, selection
        self._count = request.options.count_rows
        self._incomplete: list[str] = []
        self._from = selection.relation([quote(part) for part in selection.table])
        # Bytes that are no UTF-8 make their record unreadable, not the whole file.
        raw.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
        with _translated(path):
            raw.execute("BEGIN")
            cursor = raw.execute(f"SELECT * FROM {self._from} LIMIT 0")
        self._names = [one[0] for one in cursor.description]
        check_result(self._names, request.primary_key, f"The SQLite file {path}: {selection.name}")
        self._bound: list[object] = []
        self._where = self._selected(request)

    def _selected(self, request: ReadRequest) -> str:
        """Give the condition that SQLite selects by, its values in `_bound`.

        Only columns of tables that were declared as whole numbers or text: others compare by what each
        value is. Texts compare by their bytes, as signatures do, and as Arrow finds the highest one.
        """
        with _translated(self._path):
            pins = {} if self._selection.query else _declared(self._raw, self._selection.table[-1])
        found = conditions(request, pins)

        def quoted(name: str) -> str:
            # A collation of the program that made the table is not at hand here.
            return quote(name) + (" COLLATE BINARY" if pins[name] == "text" else "")

        def told(value: object) -> str:
            self._bound.append(value)
            return "?"

        return where(found, quoted, told)

    @property
    def end(self) -> ReadEnd:
        """What is known at the end."""
        return ReadEnd(incomplete=tuple(self._incomplete))

    def __iter__(self) -> Iterator[ReadBatch]:
        done = 0
        with _translated(self._path):
            cursor = self._raw.execute(f"SELECT * FROM {self._from}{self._where}", self._bound)
            # Python's driver gives values one by one; they are turned by columns.
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield self._by_columns(rows, done)
                done += len(rows)
            if not self._count:
                return
            counting = f"SELECT count(*) FROM {self._from}{self._where}"
            [counted] = self._raw.execute(counting, self._bound).fetchone()
        if counted != done:
            self._incomplete.append(
                f"{self._selection.name} gave {done:,} rows, but counts {counted:,} in the same snapshot"
            )

    def _by_columns(self, rows: list[tuple[object, ...]], before: int) -> ReadBatch:
        columns: dict[str, pa.Array] = {}
        misfits: dict[str, Mask] = {}
        values = dict(zip(self._names, zip(*rows, strict=True), strict=True))
        for name, given in values.items():
            columns[name], misfit = self._column(name, given)
            if misfit is not None:
                misfits[name] = misfit

        def explain(row: int, name: str) -> Unreadable:
            return Unreadable(
                f"{self._selection.name}, row {before + row + 1}", self._reason(name, values[name][row]), name
            )

        return fitting_batch(record_batch(columns, len(rows)), misfits, (), explain)


def _declared(raw: sqlite3.Connection, table: str) -> dict[str, str]:
    """Give the pins of a table's columns with the affinity of integers or, in UTF-8, of text.

    Source: https://www.sqlite.org/datatype3.html, section 3.1. Views and virtual tables have none.
    """
    made = raw.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)", (table,)
    ).fetchone()
    if made is None or str(made[0]).upper().startswith("CREATE VIRTUAL"):
        return {}
    [encoding] = raw.execute("PRAGMA encoding").fetchone()
    pins = {}
    for name, declared in raw.execute("SELECT name, upper(type) FROM pragma_table_xinfo(?)", (table,)):
        if "INT" in declared:
            pins[name] = "integer"
        elif encoding == "UTF-8" and any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
            pins[name] = "text"
    return pins


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", None) or ""
        told = next((text for beginning, text in _REASONS.items() if code.startswith(beginning)), None)
        told = told or f"can't be read: {error}. Mend the table or the query, then run again."
        raise SourceError(f"The SQLite file {path} {told}") from error


_REASONS = {
    "SQLITE_BUSY": f"stayed locked by another program for {_BUSY_SECONDS:.0f} s: wait for it, then run again.",
    "SQLITE_CANTOPEN": "can't be opened: check the path and its permissions, then run again.",
    "SQLITE_NOTADB": "is not a SQLite database: name another file.",
    "SQLITE_CORRUPT": "is damaged: restore it from a backup, then run again.",
}
