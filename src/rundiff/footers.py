"""Footers of Parquet files, taken apart and put together again: only places in the file are changed.

A footer is one struct in Thrift's compact protocol (parquet-format, `parquet.thrift` and `README.md`;
thrift, `doc/specs/thrift-compact-protocol.md`). It is read as a tree of fields by their numbers, so that what is
not known here goes through as it came.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Footer", "body_and_footer", "joined_footer"]

_MAGIC = b"PAR1"
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)

Fields = dict[int, tuple[int, Any]]
"""Type and value of a struct's fields by number: integers, bytes as they stand, (type, values) for a list, `Fields`."""

# Fields of parquet.thrift.
_ROWS, _GROUPS = 3, 4
_COLUMNS, _GROUP_AT, _ORDINAL = 1, 5, 7
_CHUNK_AT, _CHUNK = 2, 3
_DATA_AT, _INDEX_AT, _DICTIONARY_AT, _BLOOM_AT = 9, 10, 11, 14
_MOST_ORDINAL = (1 << 15) - 1


class Footer(msgspec.Struct, frozen=True):
    """What a file says of itself, and where its body began when it said so."""

    fields: Fields

    def moved(self, by: int) -> list[Fields]:
        """Give the row groups of a file whose body is to stand `by` bytes further on."""
        groups: list[Fields] = self.fields[_GROUPS][1][1]
        for group in groups:
            _shift(group, (_GROUP_AT,), by)
            for column in group[_COLUMNS][1][1]:
                _shift(column, (_CHUNK_AT,), by)
                _shift(column[_CHUNK][1], (_DATA_AT, _INDEX_AT, _DICTIONARY_AT, _BLOOM_AT), by)
        return groups


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
