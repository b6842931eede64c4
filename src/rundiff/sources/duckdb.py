"""DuckDB as a source: one transaction, streamed as Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from rundiff.duckdb_file import why_closed
from rundiff.errors import SourceError
from rundiff.sources.contract import ReadRequest
from rundiff.sources.pushdown import conditions, where
from rundiff.sources.sqlselection import Selection, check_result, database_file
from rundiff.sources.textreading import Pass
from rundiff.sources.typedreading import TypedReading, check_names
from rundiff.sqlnames import quote

if TYPE_CHECKING:
    import duckdb

__all__ = ["DuckdbSource"]

_ROWS = 65_536
_AS_TEXT = {"HUGEINT": 39, "UHUGEINT": 39, "BIGNUM": 76, "BIT": 0, "TIME WITH TIME ZONE": 0}
"""Types that Arrow has no plain one for: decimals of so many digits, or text."""

_TRUSTED = {
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"
    ),
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "VARCHAR": "text",
}
"""Types that DuckDB compares as signatures do, or more coarsely."""


class DuckdbSource:
    """A table or query of a DuckDB file."""

    may_delete_without_count = True

    def __init__(self, url: str, selection: Selection) -> None:
        self._path = database_file(url, "duckdb")
        self._selection = selection.within("main")
        self.location = f"duckdb:///{self._path.as_posix()}{self._selection.identity}"

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[TypedReading]:
        """Begin one reading; see `contract.Source`."""
        if not self._path.is_file():
            raise SourceError(f"There is no DuckDB file {self._path}: name another one.")
        raw = _connect(self._path)
        try:
            yield _Snapshot(raw, self._path, self._selection).reading(request)
        finally:
            raw.close()


class _Snapshot:
    """One transaction that sees the file as it was at its start."""

    def __init__(self, raw: duckdb.DuckDBPyConnection, path: Path, selection: Selection) -> None:
        self._raw, self._path, self._selection = raw, path, selection
        with _translated(path):
            raw.execute("SET TimeZone = 'UTC'; SET arrow_lossless_conversion = true")
            raw.execute("BEGIN TRANSACTION")
            [(catalog,)] = raw.execute("SELECT current_database()").fetchall()
        # With the catalogue: a file `main.db` makes shorter names ambiguous.
        self._from = selection.relation([quote(part) for part in (catalog, *selection.table)])

    def reading(self, request: ReadRequest) -> TypedReading:
        """Find the columns and their types out."""
        label = f"The DuckDB file {self._path}: {self._selection.name}"
        with _translated(self._path):
            told = self._raw.execute(f"SELECT * FROM {self._from} LIMIT 0").description or []
            names = [str(one[0]) for one in told]
            check_result(names, request.primary_key, label)
            types = [str(one[1]).upper() for one in told]
            # Names of a query's columns differ by more than their case, or DuckDB refuses it.
            self._digits = {
                name: _AS_TEXT[kind] for name, kind in zip(names, types, strict=True) if _AS_TEXT.get(kind)
            }
            chosen = [
                f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" if kind in _AS_TEXT else quote(name)
                for name, kind in zip(names, types, strict=True)
            ]
            select = f"SELECT {', '.join(chosen)} FROM {self._from}"
            check_names(self._raw.sql(f"{select} LIMIT 0").to_arrow_table().schema, label)
        self._where = self._selected(request, dict(zip(names, types, strict=True)))
        return TypedReading(lambda walk: self._batches(walk, select, request), request, None)

    def _selected(self, request: ReadRequest, types: Mapping[str, str]) -> str:
        """Give the condition that DuckDB selects by, its values in `_bound`."""
        pins = {name: _TRUSTED[kind] for name, kind in types.items() if kind in _TRUSTED}
        # The order of texts is their collation's.
        found = [one for one in conditions(request, pins) if not one.orders_texts]
        self._bound: list[object] = []

        def told(value: object) -> str:
            self._bound.append(value)
            return "?"

        return where(found, quote, told)

    def _batches(
        self, walk: Pass, select: str, request: ReadRequest
    ) -> Iterator[tuple[pa.RecordBatch, Callable[[int], str]]]:
        done = 0
        with _translated(self._path):
            for batch in self._raw.sql(select + self._where, params=self._bound).to_arrow_reader(_ROWS):
                yield self._decimals(batch), _locator(self._selection.name, done)
                done += batch.num_rows
            if not request.options.count_rows:
                return
            counting = f"SELECT count(*) FROM {self._from}{self._where}"
            [(counted,)] = self._raw.execute(counting, self._bound).fetchall()
        if counted != done:
            walk.incomplete.append(
                f"{self._selection.name} gave {done:,} rows, but counts {counted:,} in the same snapshot"
            )

    def _decimals(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for name, digits in self._digits.items():
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, name, batch.column(place).cast(pa.decimal256(digits, 0)))
        return batch


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    with _translated(path):
        try:
            return duckdb.connect(str(path), read_only=True)
        except duckdb.ConnectionException:
            # This process has the file open for writing already: it is the destination, too.
            return duckdb.connect(str(path))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"The DuckDB file {path} {why_closed(str(error)) or _reason(str(error))}"
        ) from error


def _reason(message: str) -> str:
    first = message.split("\n", 1)[0].removesuffix(".")
    return f"can't be read: {first}. Mend the table or the query, then run again."


def _locator(label: str, before: int) -> Callable[[int], str]:
    return lambda row: f"{label}, row {before + row + 1}"
