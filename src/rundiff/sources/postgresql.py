"""PostgreSQL as a source: one REPEATABLE READ snapshot, streamed by COPY (psycopg 3).

1 million rows of 12 fields took 2.7 s by COPY of CSV read by Arrow, 2.4 s by ADBC, 3.9 s by a named
cursor into tuples (PostgreSQL 18 on the same 2 cores). COPY states how many rows it sent, and its text
forms are exact for every type. Source: https://www.postgresql.org/docs/current/sql-copy.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rundiff.errors import MissingDriver, SourceError
from rundiff.servers import Server, parse_server
from rundiff.sources.contract import ReadRequest, Unreadable
from rundiff.sources.pins import canonical_pin
from rundiff.sources.pushdown import conditions, where
from rundiff.sources.sqlselection import Selection, check_result
from rundiff.sources.sqlwire import CHUNK_BYTES, WireColumn, WireReading, column, intervals, lists_of, unhexed
from rundiff.sources.textreading import Pass
from rundiff.sqlnames import quote

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresqlSource"]

_CONNECT_SECONDS = 15
_DEFAULTS = {
    "connect_timeout": _CONNECT_SECONDS,
    "application_name": "rundiff",
    # A server that vanished would be waited for, for hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
_SCALE = 9
"""Digits behind the point that a numeric without a precision gets at least, as `numeric` means in `--types`."""
_NUMERIC = 1700
_PINS = {
    20: "integer",
    21: "integer",
    23: "integer",
    26: "integer",
    701: "double",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamp with time zone",
    114: "json",
    3802: "json",
}
"""Types by OID whose text form is read as it is; all others are text."""

_TRUSTED = {
    16: "boolean",
    20: "integer",
    21: "integer",
    23: "integer",
    25: "text",
    1043: "text",
    1082: "date",
    1114: "timestamp",
    1184: "timestamp with time zone",
}
"""Types by OID that the server compares as signatures do. Not among them: char(n), whose blanks come and go."""


class PostgresqlSource:
    """A table or query of a PostgreSQL database."""

    may_delete_without_count = True

    def __init__(self, url: str, selection: Selection) -> None:
        self._server = parse_server("postgresql://" + url.partition("://")[2], "postgresql", 5432, "source")
        self._selection = selection.within("public")
        self.location = self._server.address + self._selection.identity

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[WireReading]:
        """Begin one reading; see `contract.Source`."""
        connection = _connect(self._server)
        try:
            snapshot = _Snapshot(connection, self._server, self._selection)
            yield snapshot.reading(request)
        finally:
            connection.close()


class _Snapshot:
    """One transaction that sees the database as it was at its start."""

    def __init__(self, connection: psycopg.Connection[Any], server: Server, selection: Selection) -> None:
        self._raw, self._server, self._selection = connection, server, selection
        self._from = selection.relation([quote(part) for part in selection.table])
        self._place = f"The PostgreSQL database {server.address}"
        # Local to the transaction: poolers may give the session to others afterwards.
        self._ask(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; "
            "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'iso_8601'; "
            "SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; "
            # Records may take their time to be compared.
            "SET LOCAL idle_in_transaction_session_timeout = 0"
        )

    def reading(self, request: ReadRequest) -> WireReading:
        """Find the columns and their types out."""
        with self._translated():
            cursor = self._raw.execute(f"SELECT * FROM {self._from} LIMIT 0".encode())
            described = [
                (one.name, one.type_code, cursor.pgresult.fmod(number) if cursor.pgresult else -1)
                for number, one in enumerate(cursor.description or ())
            ]
        names = [name for name, _, _ in described]
        check_result(names, request.primary_key, f"{self._place}: {self._selection.name}")
        elements = self._elements([kind for _, kind, _ in described])
        known = {**(request.pins or {}), **request.options.types}
        open_ended = [
            name for name, kind, mod in described if (kind, mod) == (_NUMERIC, -1) and name not in known
        ]
        measured = self._measured(open_ended)
        columns = []
        for name, kind, mod in described:
            if name in measured:
                columns.append(column(name, quote(name), measured[name]))
            elif (kind, mod) == (_NUMERIC, -1):
                columns.append(column(name, quote(name), _pinned_decimal(known[name])))
            elif kind in elements:
                columns.append(_array(name, elements[kind], mod))
            else:
                columns.append(_column(name, quote(name), kind, mod))
        label = self._selection.name
        reading = WireReading(lambda walk: self._chunks(walk, reading, request), columns, request, label)
        self._columns = columns
        self._where = self._selected(request, described)
        return reading

    def _selected(self, request: ReadRequest, described: Sequence[tuple[str, int, int]]) -> str:
        """Give the condition that the server selects by. COPY takes no parameters: libpq writes the values."""
        from psycopg.sql import Literal

        ascii_only = self._raw.info.parameter_status("server_encoding") != "UTF8"
        pins = {name: _TRUSTED[kind] for name, kind, _ in described if kind in _TRUSTED}
        pins |= {one.name: one.pin for one in self._columns if one.pin.startswith("decimal(")}
        found = conditions(request, pins, ascii_only=ascii_only)

        def quoted(name: str) -> str:
            # Texts compare by their bytes, as Arrow finds the highest one.
            by_bytes = any(one.field == name and one.orders_texts for one in found)
            return quote(name) + (' COLLATE "C"' if by_bytes else "")

        return where(found, quoted, lambda value: Literal(value).as_string(self._raw))

    def _chunks(
        self, walk: Pass, reading: WireReading, request: ReadRequest
    ) -> Iterator[tuple[bytes, Sequence[Unreadable]]]:
        chosen = ", ".join(one.expression for one in self._columns)
        copy_out = f"COPY (SELECT {chosen} FROM {self._from}{self._where}) TO STDOUT (FORMAT csv)"
        with self._translated(), self._raw.cursor() as cursor:
            parts: list[bytes] = []
            size = 0
            # By messages, each a row (PostgreSQL documentation, 55.2.7); they are only joined here.
            with cursor.copy(copy_out.encode()) as copy:
                for message in copy:
                    parts.append(bytes(message))
                    size += len(message)
                    if size >= CHUNK_BYTES and parts[-1].endswith(b"\n"):
                        yield b"".join(parts), ()
                        walk.bytes_done += size
                        parts, size = [], 0
            if parts:
                yield b"".join(parts), ()
                walk.bytes_done += size
            stated = reading.stated = cursor.rowcount
        if request.options.count_rows:
            counted = int(self._ask(f"SELECT count(*) FROM {self._from}{self._where}")[0][0])
            if counted != stated:
                walk.incomplete.append(
                    f"{self._selection.name} gave {stated:,} rows, but counts {counted:,} in the same snapshot"
                )

    def _elements(self, kinds: Sequence[int]) -> dict[int, int]:
        """Find the element types of arrays."""
        rows = self._ask(
            "SELECT oid::int8, typelem::int8 FROM pg_type WHERE typcategory = 'A' AND typelem <> 0 "
            f"AND oid IN ({', '.join(map(str, [0, *kinds]))})"
        )
        return {int(array): int(element) for array, element in rows}

    def _measured(self, names: Sequence[str]) -> dict[str, str]:
        """Give pins to numerics without a precision: decimals that keep every value there is now."""
        if not names:
            return {}
        finite = [f"CASE WHEN c{n} - c{n} = 0 THEN c{n} END" for n in range(len(names))]
        asked = ", ".join(f"max(scale(trim_scale({one}))), max(abs(trunc({one})))::text" for one in finite)
        given = ", ".join(f"{quote(name)} AS c{n}" for n, name in enumerate(names))
        [found] = self._ask(f"SELECT {asked} FROM (SELECT {given} FROM {self._from}) AS measured")
        pins = {}
        for number, name in enumerate(names):
            scale = max(_SCALE, found[2 * number] or 0)
            before = len(found[2 * number + 1] or "0")
            digits = 38 if before + scale <= 38 else 76
            pins[name] = f"decimal({digits},{scale})" if before + scale <= 76 else "text"
        return pins

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._translated():
            cursor = self._raw.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate or ""
            reason = self._server.hushed(error.diag.message_primary or str(error))
            if not state or state[:2] in ("08", "57"):
                text = f"broke the reading off: {reason}. Nothing was written; run again."
            else:
                text = f"can't be read: {reason}. Mend the table, the query or its rights, then run again."
            raise SourceError(f"{self._place} {text}") from error


def _connect(server: Server) -> psycopg.Connection[Any]:
    try:
        import psycopg
    except ImportError:
        raise MissingDriver(
            "PostgreSQL needs the package psycopg: install it with `pip install 'rundiff[postgresql]'`."
        ) from None
    known = {
        "host": server.host,
        "port": server.port,
        "dbname": server.database,
        "user": server.user,
        "password": server.password,
    }
    given: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    given |= {**_DEFAULTS, **server.options, "client_encoding": "UTF8"}
    try:
        # Without prepared statements, which poolers of transactions don't keep.
        return psycopg.connect(autocommit=True, prepare_threshold=None, **given)
    except psycopg.Error as error:
        raise SourceError(
            f"The PostgreSQL database {server.address} can't be reached: {server.hushed(str(error))}. "
            "Mend it, then run again."
        ) from None


def _column(name: str, quoted: str, kind: int, mod: int) -> WireColumn:
    if kind == 16:
        return column(name, f"{quoted}::int4", "boolean")
    if kind == 17:
        return column(name, quoted, "binary", unhexed(2))
    if kind == 700:
        return column(name, f"{quoted}::float8", "double")
    if kind == _NUMERIC:
        return column(name, quoted, _decimal(mod))
    if kind == 1186:
        return column(name, quoted, "mixed", intervals)
    if kind == 2950:
        return column(name, quoted, "uuid", unhexed(uuid=True))
    return column(name, quoted, _PINS.get(kind, "text"))


def _array(name: str, element: int, mod: int) -> WireColumn:
    quoted = quote(name)
    inner = _column(name, quoted, element, mod)
    if element == _NUMERIC and mod == -1:
        inner = column(name, quoted, f"decimal(38,{_SCALE})")
    if inner.pin == "mixed":
        inner = column(name, quoted, "text")
    # Booleans and single floats have other texts in an array than the columns that are made of them.
    cast = {16: "::int4[]", 700: "::float8[]"}.get(element, "")
    return column(name, f"to_json({quoted}{cast}::text[])", f"list<{inner.pin}>", lists_of(inner))


def _decimal(mod: int) -> str:
    """Read precision and scale: 16 bits and 11 bits, the scale with a sign since PostgreSQL 15."""
    precision, scale = (mod - 4) >> 16 & 0xFFFF, ((mod - 4 & 0x7FF) ^ 0x400) - 0x400
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    return f"decimal({precision},{scale})" if precision <= 76 else "text"


def _pinned_decimal(pin: str) -> str:
    """Read an unbounded numeric as the decimal that it is pinned to, and as text for any other pin."""
    pin = canonical_pin(pin)
    return pin if pin.startswith("decimal(") else "text"
