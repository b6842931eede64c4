"""Where the records of a delimited file begin and end.

Arrow's CSV reader takes an unterminated quote for a value that reaches to the end of the file, and
text behind a closing quote for a part of the value: both swallow records without a word. So the file
is cut here into chunks of whole records first, and what breaks the rules of RFC 4180 is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from rundiff.errors import SourceError

__all__ = ["CHUNK_BYTES", "LONGEST_RECORD", "Broken", "Chunk", "RecordCutter", "record_pattern"]

CHUNK_BYTES = 8 << 20
LONGEST_RECORD = 512 << 20
"""A record that reaches further is taken for a missing quote, not for data."""

_QUOTE = 34
_JUNK = "text follows a closing quote; quotes inside of a quoted value must be doubled"


class _Readable(Protocol):
    def read(self, size: int) -> bytes: ...


class Broken(msgspec.Struct, frozen=True):
    """A record that can't be read: where it begins and ends in its chunk, and why."""

    start: int
    end: int
    reason: str
    field: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """Some whole records, as they stand in the file (UTF-8), line ends included."""

    data: bytes
    first_line: int
    """The line of the first record, from 1."""
    broken: tuple[Broken, ...] = ()
    """Records in `data` that can't be read."""
    tail: bytes = b""
    """What follows at the end of the file without a line end: a whole record, or a part of one."""
    tail_unterminated: bool = False
    """The tail is inside of a quoted value."""

    def sound(self) -> bytes:
        """Give the records that obey the rules."""
        if not self.broken:
            return self.data
        parts, at = [], 0
        for one in self.broken:
            parts.append(self.data[at : one.start])
            at = one.end
        parts.append(self.data[at:])
        return b"".join(parts)


def record_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    """Match one record with its line end; `junk` is set if text follows a closing quote."""
    sign = re.escape(delimiter)
    field = (
        rb'(?:"(?:[^"]++|"")*+"(?P<%s>[^'
        + sign
        + rb'\r\n]++)?|[^"'
        + sign
        + rb"\r\n][^"
        + sign
        + rb"\r\n]*+|)"
    )
    first, more = field % b"junk", field % b"more"
    return re.compile(first + rb"(?:" + sign + more + rb")*+(?:\r\n|\n|\r)")


class RecordCutter:
    """Cuts a stream into chunks of whole records, each as large as its longest record needs."""

    def __init__(self, stream: _Readable, delimiter: bytes, rest: bytes, line: int, line_end: bytes) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._pattern = record_pattern(delimiter)
        self._rest = rest
        self._line = line
        self._line_end = line_end

    def __iter__(self) -> Iterator[Chunk]:
        size = CHUNK_BYTES
        while True:
            block = self._stream.read(size)
            data = self._rest + block
            ended = not block
            cut, broken, unterminated = self._cut(data)
            if not cut and not ended:
                if len(data) > LONGEST_RECORD:
                    raise SourceError(
                        f"The record that begins in line {self._line} does not end within {LONGEST_RECORD >> 20} MiB; "
                        "look for a missing quote there, or check --delimiter."
                    )
                # Doubling keeps the bytes looked at again and again linear in the record's length.
                self._rest, size = data, max(CHUNK_BYTES, len(data))
                continue
            size = CHUNK_BYTES
            self._rest = b"" if ended else data[cut:]
            tail = data[cut:] if ended else b""
            if cut or tail:
                yield Chunk(data[:cut], self._line, broken, tail, unterminated and bool(tail))
            self._line += data.count(self._line_end, 0, cut)
            if ended:
                return

    def _cut(self, data: bytes) -> tuple[int, tuple[Broken, ...], bool]:
        """Find the end of the last whole record, the broken ones, and whether the rest is in quotes."""
        if b'"' not in data:
            return data.rfind(self._line_end) + 1, (), False
        content = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(content == _QUOTE)
        if self._regular(content, quotes):
            return *self._last_outside(data, quotes), len(quotes) % 2 == 1
        return self._cut_by_record(data)

    def _regular(self, content: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp]) -> bool:
        """Check that quotes alternate: opening after a delimiter, closing before one.

        If every odd quote opens at the start of a field, or continues a doubled one, and every even
        quote is followed by a delimiter, a line end or its double, then counting them is exact.
        """
        opening, closing = quotes[0::2], quotes[1::2]
        edges = np.zeros(256, np.bool_)
        edges[[self._delimiter[0], 10, 13, _QUOTE]] = True
        before = content[np.maximum(opening - 1, 0)]
        # A quote right before an opening one must be the closing one of a doubled pair.
        if not bool((edges[before] | (opening == 0)).all()):
            return False
        after = content[np.minimum(closing + 1, len(content) - 1)]
        return bool((edges[after] | (closing == len(content) - 1)).all())

    def _last_outside(self, data: bytes, quotes: npt.NDArray[np.intp]) -> tuple[int, tuple[()]]:
        end = len(data)
        while (found := data.rfind(self._line_end, 0, end)) >= 0:
            before = int(np.searchsorted(quotes, found))
            if before % 2 == 0:
                return found + 1, ()
            end = int(quotes[before - 1])
        return 0, ()

    def _cut_by_record(self, data: bytes) -> tuple[int, tuple[Broken, ...], bool]:
        # Stray quotes: only a walk from record to record can tell what they mean.
        cut, broken = 0, list[Broken]()
        while (found := self._pattern.match(data, cut)) is not None:
            if found["junk"] is not None or found["more"] is not None:
                broken.append(Broken(cut, found.end(), _JUNK))
            cut = found.end()
        rest = data[cut:]
        if cut < len(data):
            whole = self._pattern.match(rest + b"\n")
            unterminated = whole is None or whole.end() != len(rest) + 1
            if whole is not None and not unterminated and (whole["junk"] or whole["more"]):
                unterminated = True
            return cut, tuple(broken), unterminated
        return cut, tuple(broken), False
