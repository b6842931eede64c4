"""Footers of Parquet files, taken apart and put together again: only places in the file are changed.

A footer is one struct in Thrift's compact protocol (parquet-format, `parquet.thrift` and `README.md`;
thrift, `doc/specs/thrift-compact-protocol.md`). It is read as a tree of fields by their numbers, so that what is
not known here goes through as it came.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import msgspec

__all__ = [
    "Chunk",
    "Fields",
    "Footer",
    "Leaves",
    "body_and_footer",
    "chunks",
    "joined_footer",
    "read_footer",
    "rows_of",
    "with_column",
]

_MAGIC = b"PAR1"
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)

Fields = dict[int, tuple[int, Any]]
"""Type and value of a struct's fields by number: integers, bytes as they stand, (type, values) for a list, `Fields`."""

# Fields of parquet.thrift.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_NAME, _CHILDREN, _FIELD_ID = 4, 5, 9
_COLUMNS, _GROUP_BYTES, _GROUP_AT, _GROUP_SIZE, _ORDINAL = 1, 2, 5, 6, 7
_CHUNK_AT, _CHUNK = 2, 3
_CHUNK_INDEXES = (4, 5, 6, 7)
_CODEC, _CHUNK_BYTES, _CHUNK_SIZE = 4, 6, 7
_DATA_AT, _INDEX_AT, _DICTIONARY_AT, _BLOOM_AT, _BLOOM_SIZE = 9, 10, 11, 14, 15
_MOST_ORDINAL = (1 << 15) - 1


class Leaves(msgspec.Struct, frozen=True):
    """A column of a schema: its place among the leaves of all columns, and what it is made of."""

    first: int
    count: int
    elements: list[Fields]


class Footer(msgspec.Struct, frozen=True):
    """What a file says of itself, and where its body began when it said so."""

    fields: Fields

    @property
    def groups(self) -> list[Fields]:
        """The row groups."""
        groups: list[Fields] = self.fields[_GROUPS][1][1]
        return groups

    def moved(self, by: int) -> list[Fields]:
        """Give the row groups of a file whose body is to stand `by` bytes further on."""
        for group in self.groups:
            _shift(group, (_GROUP_AT,), by)
            for column in group[_COLUMNS][1][1]:
                _move(column, by)
        return self.groups

    def leaves(self, name: str) -> Leaves | None:
        """Find a column by its name; None if there is none."""
        elements: list[Fields] = self.fields[_SCHEMA][1][1]
        at, leaves = 1, 0
        while at < len(elements):
            first, count = at, 0
            below = 1
            while below:
                children = elements[at].get(_CHILDREN, (0, 0))[1]
                below += children - 1
                count += not children
                at += 1
            if elements[first][_NAME][1] == name.encode():
                # Numbers of fields say nothing of values.
                told = [{n: f for n, f in one.items() if n != _FIELD_ID} for one in elements[first:at]]
                return Leaves(leaves, count, told)
            leaves += count
        return None


class Chunk(msgspec.Struct, frozen=True):
    """The pages of a column in one row group."""

    fields: Fields

    @property
    def codec(self) -> int:
        """How its pages are compressed, by the number of parquet.thrift."""
        return self._of(_CODEC)

    @property
    def start(self) -> int:
        """Where in the file it begins."""
        return self._of(_DICTIONARY_AT) or self._of(_DATA_AT)

    @property
    def size(self) -> int:
        """Its length in the file."""
        return self._of(_CHUNK_SIZE)

    def at(self, start: int) -> Fields:
        """Describe it as it stands at another place, without indexes, which do not come along."""
        kind, inner = self.fields[_CHUNK]
        told = {n: f for n, f in inner.items() if n not in (_BLOOM_AT, _BLOOM_SIZE)}
        column = {n: f for n, f in self.fields.items() if n not in _CHUNK_INDEXES}
        column[_CHUNK] = (kind, told)
        _move(column, start - self.start)
        return column

    def _of(self, number: int) -> int:
        value: int = self.fields[_CHUNK][1].get(number, (0, 0))[1]
        return value


def chunks(group: Fields, leaves: Leaves) -> list[Chunk]:
    """Give the chunks of a column in a row group."""
    return [Chunk(one) for one in group[_COLUMNS][1][1][leaves.first : leaves.first + leaves.count]]


def rows_of(group: Fields) -> int:
    """Give the number of rows of a row group."""
    rows: int = group[_ROWS][1]
    return rows


def with_column(group: Fields, columns: list[Fields], at: int) -> Fields:
    """Give a row group with the chunks of one more column, from leaf `at` on."""
    kind, (member, others) = group[_COLUMNS]
    every = [*others[:at], *columns, *others[at:]]
    whole = {**group, _COLUMNS: (kind, (member, every))}
    for number, of_chunk in ((_GROUP_BYTES, _CHUNK_BYTES), (_GROUP_SIZE, _CHUNK_SIZE)):
        if number in group:
            whole[number] = (group[number][0], sum(one[_CHUNK][1][of_chunk][1] for one in every))
    return whole


def read_footer(file: BinaryIO) -> Footer:
    """Read the footer of a Parquet file."""
    file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(-8 - length, os.SEEK_END)
    return Footer(_Reader(memoryview(file.read(length))).fields())


def body_and_footer(file: memoryview) -> tuple[memoryview, Footer]:
    """Take a whole Parquet file apart: the pages of its row groups, and its footer."""
    length = int.from_bytes(file[-8:-4], "little")
    return file[4 : -8 - length], Footer(_Reader(file[-8 - length : -8]).fields())


def joined_footer(first: Footer, groups: list[Fields]) -> bytes:
    """Give the end of a file with the row groups of several: all of one schema, moved to where they stand."""
    rows = sum(group[_ROWS][1] for group in groups)
    for number, group in enumerate(groups):
        if number > _MOST_ORDINAL:
            group.pop(_ORDINAL, None)
        elif _ORDINAL in group:
            group[_ORDINAL] = (group[_ORDINAL][0], number)
    kind = first.fields[_GROUPS][0]
    fields = {**first.fields, _ROWS: (first.fields[_ROWS][0], rows), _GROUPS: (kind, (_STRUCT, groups))}
    out = bytearray()
    _write_fields(out, fields)
    return bytes(out) + len(out).to_bytes(4, "little") + _MAGIC


def _move(column: Fields, by: int) -> None:
    _shift(column, (_CHUNK_AT,), by)
    _shift(column[_CHUNK][1], (_DATA_AT, _INDEX_AT, _DICTIONARY_AT, _BLOOM_AT), by)


def _shift(fields: Fields, numbers: tuple[int, ...], by: int) -> None:
    for number in numbers:
        # 0 says that there is none: the body of a file begins at 4.
        if number in fields and fields[number][1]:
            kind, at = fields[number]
            fields[number] = (kind, at + by)


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def fields(self) -> Fields:
        found: Fields = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            found[number] = (kind, None if kind in (_TRUE, _FALSE) else self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._take(self._number())
        if kind == _STRUCT:
            return self.fields()
        if kind in (_LIST, _SET):
            head = self._byte()
            count = self._number() if head >> 4 == 15 else head >> 4
            return head & 15, [self._value(head & 15) for _ in range(count)]
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._take(1)
        if kind == _DOUBLE:
            return self._take(8)
        raise ValueError(
            f"a Parquet footer has a field of Thrift's type {kind}, which its definition has not"
        )

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, count: int) -> bytes:
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        number = self._number()
        return number >> 1 ^ -(number & 1)


def _write_fields(out: bytearray, fields: Fields) -> None:
    before = 0
    for number, (kind, value) in sorted(fields.items()):
        if 0 < number - before < 16:
            out.append(number - before << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        before = number
        if kind not in (_TRUE, _FALSE):
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_integer(out, value)
    elif kind == _BINARY:
        _write_number(out, len(value))
        out += value
    elif kind == _STRUCT:
        _write_fields(out, value)
    elif kind in (_LIST, _SET):
        member, values = value
        out.append(min(len(values), 15) << 4 | member)
        if len(values) >= 15:
            _write_number(out, len(values))
        for each in values:
            _write_value(out, member, each)
    else:
        out += value


def _write_number(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _write_integer(out: bytearray, value: int) -> None:
    _write_number(out, value << 1 if value >= 0 else (-value << 1) - 1)
