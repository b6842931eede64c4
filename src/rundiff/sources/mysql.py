"""MySQL and MariaDB as a source: one consistent snapshot, streamed by an unbuffered cursor (PyMySQL).

The server joins each record to one line of CSV, so that Python touches one value per record and Arrow
reads the columns: PyMySQL alone decodes every value of every record in Python.
Source: https://dev.mysql.com/doc/refman/8.4/en/, https://mariadb.com/kb/en/documentation/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from typing import Any

from rundiff.errors import SourceError
from rundiff.mysql_login import OPTIONS, connect
from rundiff.servers import Server, parse_server
from rundiff.sources.contract import ReadRequest, Unreadable
from rundiff.sources.pushdown import conditions, where
from rundiff.sources.sqlselection import Selection, check_result
from rundiff.sources.sqlwire import CHUNK_BYTES, WireColumn, WireReading, column, spans, unhexed
from rundiff.sources.textreading import Pass

__all__ = ["MysqlSource"]

_FETCHED = 2_000
_BINARY = 63
"""The number of the character set of bytes."""
_UNSIGNED = 32
_TINY, _FLOAT, _DOUBLE, _TIMESTAMP, _DATE, _TIME, _DATETIME, _BIT, _JSON = 1, 4, 5, 7, 10, 11, 12, 16, 245
_DECIMALS = (0, 246)
_NUMBERS = frozenset({1, 2, 3, 8, 9, 13, _FLOAT, _DOUBLE, _BIT, *_DECIMALS})
"""Also TINY, SHORT, LONG, LONGLONG, INT24 and YEAR."""
_TRUSTED = frozenset({1, 2, 3, 8, 9, 252, 253, 254, _TIMESTAMP, _DATE, _DATETIME, *_DECIMALS})
"""Whole numbers, decimals, texts and dates: the server compares them as signatures do, or more coarsely."""
_NO_DATE = "{name} < '0000-01-01'"
"""Zero dates stand for none."""
_ENUM_OR_SET = 256 | 2_048
_BROKEN = (0, 1053, 1927, 2006, 2013, 2014, 2055, 3024, 4031)


class MysqlSource:
    """A table or query of a MySQL or MariaDB database."""

    may_delete_without_count = True

    def __init__(self, url: str, selection: Selection) -> None:
        self._server = parse_server("mysql://" + url.partition("://")[2], "mysql", 3306, "source", OPTIONS)
        self._selection = selection.within(self._server.database)
        self.location = self._server.address + self._selection.identity

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[WireReading]:
        """Begin one reading; see `contract.Source`."""
        raw = connect(self._server, SourceError)
        try:
            yield _Snapshot(raw, self._server, self._selection).reading(request)
        finally:
            _abandon(raw)


class _Snapshot:
    """One transaction that sees the database as it was at its start."""

    def __init__(self, raw: Any, server: Server, selection: Selection) -> None:
        self._raw, self._server, self._selection = raw, server, selection
        self._from = selection.relation([_quoted(part) for part in selection.table])
        self._place = f"The MySQL database {server.address}"
        # Records may take their time to be compared; the server would end the session meanwhile.
        self._ask("SET SESSION time_zone = '+00:00', net_write_timeout = 3600, wait_timeout = 28800")
        self._ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._ask("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def reading(self, request: ReadRequest) -> WireReading:
        """Find the columns and their types out."""
        with self._translated(), self._raw.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self._from} LIMIT 0")
            described = list(cursor._result.fields)
        names = [one.name for one in described]
        check_result(names, request.primary_key, f"{self._place}: {self._selection.name}")
        known = {**(request.pins or {}), **request.options.types}
        columns = [self._column(one, known.get(one.name)) for one in described]
        label = self._selection.name
        reading = WireReading(lambda walk: self._chunks(walk, reading, request), columns, request, label)
        self._columns = columns
        self._where = self._selected(request, described)
        return reading

    def _selected(self, request: ReadRequest, described: Sequence[Any]) -> str:
        """Give the condition that the server selects by."""
        pins = {
            one.name: read.pin
            for one, read in zip(described, self._columns, strict=True)
            if one.type_code in _TRUSTED and not one.flags & _ENUM_OR_SET and not read.pin.startswith("un")
        }
        # The order of texts is their collation's.
        found = [one for one in conditions(request, pins, ascii_only=True) if not one.orders_texts]
        return where(found, _quoted, self._told, no_date=_NO_DATE)

    def _told(self, value: Any) -> str:
        if isinstance(value, date):
            kind = "DATETIME(6)" if isinstance(value, datetime) else "DATE"
            return f"CAST('{str(value).removesuffix('+00:00')}' AS {kind})"
        return str(self._raw.escape(value)) if isinstance(value, str) else str(value)

    def _column(self, told: Any, pinned: str | None) -> WireColumn:
        name, quoted, kind = told.name, _quoted(told.name), told.type_code
        plain = f"CAST({quoted} AS CHAR)"
        if kind in _NUMBERS:
            expression, pin = self._number(told, quoted, pinned)
            return column(name, _nullable(quoted, f"CAST({expression} AS CHAR)"), pin)
        if kind == _TIME:
            within = f"{quoted} >= '00:00:00' AND {quoted} < '24:00:00'"
            clock = pinned if pinned is not None else "time" if self._all(within) else "duration"
            # MySQL's time is a span of up to 838 hours, of either sign, that mostly serves as a time of day.
            span = clock.startswith("duration")
            return column(
                name, _nullable(quoted, plain), "duration" if span else "time", spans if span else None
            )
        if kind in (_DATE, _DATETIME, _TIMESTAMP):
            pin = {_DATE: "date", _DATETIME: "timestamp"}.get(kind, "timestamp with time zone")
            text = f"CONCAT({plain}, 'Z')" if kind == _TIMESTAMP else plain
            # Zero dates stand for no date.
            return column(name, _nullable(quoted, f"IF({plain} LIKE '0000-00-00%', '', {text})"), pin)
        if kind != _JSON and told.charsetnr == _BINARY:
            in_quotes = _nullable(quoted, f"CONCAT('\"', HEX({quoted}), '\"')")
            return column(name, in_quotes, "binary", unhexed())
        text = f"REPLACE(CONVERT({quoted} USING utf8mb4), '\"', '\"\"')"
        in_quotes = _nullable(quoted, f"CONCAT('\"', {text}, '\"')")
        return column(name, in_quotes, "json" if kind == _JSON else "text")

    def _number(self, told: Any, quoted: str, pinned: str | None) -> tuple[str, str]:
        """Give expression and pin."""
        kind, unsigned = told.type_code, told.flags & _UNSIGNED
        if kind == _TINY and told.length == 1:
            # BOOLEAN is another word for tinyint(1), which holds -128 to 127.
            boolean = pinned == "boolean" if pinned else self._all(f"{quoted} IN (0, 1)")
            return quoted, "boolean" if boolean else "integer"
        if kind == _BIT:
            return f"{quoted} + 0", "boolean" if told.length == 1 else "unsigned"
        if kind in (_FLOAT, _DOUBLE):
            # A float would be written with six digits.
            return f"{quoted} + 0e0", "double"
        if kind in _DECIMALS:
            digits = told.length - (told.scale > 0) - (not unsigned)
            return quoted, f"decimal({max(digits, told.scale, 1)},{told.scale})"
        return quoted, "unsigned" if kind == 8 and unsigned else "integer"

    def _all(self, condition: str) -> bool:
        """Say whether a condition holds for every value there is now."""
        [(found,)] = self._ask(f"SELECT EXISTS(SELECT 1 FROM {self._from} WHERE NOT ({condition}))")
        return not found

    def _chunks(
        self, walk: Pass, reading: WireReading, request: ReadRequest
    ) -> Iterator[tuple[bytes, Sequence[Unreadable]]]:
        from pymysql.cursors import SSCursor  # type: ignore[import-untyped]  # as below

        values = ", ',', ".join(one.expression for one in self._columns)
        line = f"CAST(CONCAT({values}) AS BINARY)"
        name, done = self._selection.name, 0
        with self._translated():
            cursor = self._raw.cursor(SSCursor)
            cursor.execute(f"SELECT {line} FROM {self._from}{self._where}")
            lines: list[bytes] = []
            bad: list[Unreadable] = []
            size = 0
            while fetched := cursor.fetchmany(_FETCHED):
                for (one,) in fetched:
                    done += 1
                    if one is None:
                        bad.append(
                            Unreadable(
                                f"{name}, row {done}", "it is longer than the server's max_allowed_packet"
                            )
                        )
                        continue
                    lines.append(one)
                    size += len(one) + 1
                if size >= CHUNK_BYTES:
                    yield b"\n".join([*lines, b""]), bad
                    walk.bytes_done += size
                    lines, bad, size = [], [], 0
            if lines or bad:
                yield b"\n".join([*lines, b""]), bad
                walk.bytes_done += size
            cursor.close()
        reading.stated = done
        if request.options.count_rows:
            counted = int(self._ask(f"SELECT count(*) FROM {self._from}{self._where}")[0][0])
            if counted != done:
                walk.incomplete.append(
                    f"{name} gave {done:,} rows, but counts {counted:,} in the same snapshot "
                    "(tables of other engines than InnoDB have none)"
                )

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._translated(), self._raw.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import pymysql  # type: ignore[import-untyped]  # it ships no type information

        try:
            yield
        except (pymysql.err.Error, OSError) as error:
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            reason = self._server.hushed(str(error.args[1] if len(error.args) > 1 else error))
            if code in _BROKEN:
                reason = reason or "the connection was closed"
                text = f"broke the reading off: {reason}. Nothing was written; run again."
            else:
                text = f"can't be read: {reason}. Mend the table, the query or its rights, then run again."
            raise SourceError(f"{self._place} {text}") from error


def _abandon(raw: Any) -> None:
    """Close the connection at once; in order, PyMySQL would read an unbuffered result to its end first."""
    result, raw._result = raw._result, None
    if result is not None:
        result.unbuffered_active = False
    with suppress(OSError):
        raw._force_close()


def _quoted(name: str) -> str:
    """Quote an identifier in the way that every sql_mode takes."""
    return "`" + name.replace("`", "``") + "`"


def _nullable(quoted: str, expression: str) -> str:
    """Write null as nothing; a null that is left then means a value beyond max_allowed_packet."""
    return f"IF({quoted} IS NULL, '', {expression})"
