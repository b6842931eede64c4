"""JSON: one object per line, or an array of objects; records decoded one by one, never guessed at.

Decoding is strict (RFC 8259): NaN, lone surrogates and control characters in strings are refused, and
so are objects that name a member twice. One broken record does not stop the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from rundiff.errors import SourceError
from rundiff.sources.batches import columns_of
from rundiff.sources.bytestream import ByteStream, Utf8Stream
from rundiff.sources.contract import Unreadable
from rundiff.sources.records import LONGEST_RECORD
from rundiff.sources.textreading import NO_NEWLINE, Pass, RawBatch

__all__ = ["JsonFile"]

_CHUNK_BYTES = 4 << 20
DEEPEST = 100
"""Records nested deeper are unreadable: every reader and signer has its limit, and this one is ours."""
_SPACE = b" \t\r\n"
_DECODER = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_ANY = msgspec.json.Decoder(Any, float_hook=Decimal)


class JsonFile:
    """The records of one JSON file, whichever of the two forms it has."""

    def __init__(
        self, open_stream: Callable[[], ByteStream], label: str, encoding: str | None, *, lines_only: bool
    ) -> None:
        self._open = open_stream
        self._label = label
        self._encoding = encoding
        self._lines_only = lines_only

    def check(self) -> Sequence[str] | None:
        """Give None: only the records know their fields. Raises `SourceError` for a file without any form."""
        with self._open() as stream:
            text = Utf8Stream(stream, self._encoding)
            head = _first_bytes(text)
            if not head:
                raise SourceError(f"{self._label} is empty; an empty list of records is written as [].")
            if not self._lines_only and head[:1] != b"[":
                self._check_lines(head, text)
        return None

    def batches(self, walk: Pass, newline_expected: bool) -> Iterator[RawBatch]:
        """Read the records chunk by chunk; see `DelimitedFile.batches`."""
        with self._open() as stream:
            walk.position = lambda: stream.position
            text = Utf8Stream(stream, self._encoding)
            head = _first_bytes(text)
            if head[:1] == b"[" and not self._lines_only:
                yield from self._array(text, head)
            else:
                yield from self._lines(text, head, walk, newline_expected)

    def _check_lines(self, head: bytes, text: Utf8Stream) -> None:
        """Tell one object per line from a document that is one object, or none."""
        while b"\n" not in head and len(head) < LONGEST_RECORD and (block := text.read(_CHUNK_BYTES)):
            head += block
        first, _, rest = head.partition(b"\n")
        expected = "an array of objects, or one object per line, is expected"
        if head[:1] != b"{":
            raise SourceError(
                f"{self._label} begins with {head[:1].decode(errors='replace')!r}, where {expected}."
            )
        opens_more = first.strip(_SPACE) == b"{" or first.rstrip(_SPACE).endswith((b",", b"[", b"{", b":"))
        if rest.strip(_SPACE) and opens_more:
            raise SourceError(
                f"{self._label} holds one JSON object over several lines, where {expected}; "
                "take the list of records out of it first."
            )

    def _lines(self, text: Utf8Stream, rest: bytes, walk: Pass, newline_expected: bool) -> Iterator[RawBatch]:
        line = text.skipped_lines + 1
        ended_with_newline = False
        while True:
            block = text.read(max(_CHUNK_BYTES, len(rest)))
            data = rest + block
            cut = data.rfind(b"\n") + 1
            if cut:
                yield self._decode_lines(data[:cut], line)
                line += data.count(b"\n", 0, cut)
                ended_with_newline = True
            rest = data[cut:]
            if len(rest) > LONGEST_RECORD:
                raise SourceError(f"Line {line} of {self._label} is longer than {LONGEST_RECORD >> 20} MiB.")
            if not block:
                break
        if rest.strip(_SPACE):
            ended_with_newline = False
            if newline_expected:
                yield RawBatch({}, 0, str, [Unreadable(f"{self._label}, line {line}", NO_NEWLINE)])
            else:
                yield self._decode_lines(rest, line)
        walk.newlines.append(ended_with_newline)
        if newline_expected and not ended_with_newline:
            walk.incomplete.append(f"{self._label}: {NO_NEWLINE}")

    def _decode_lines(self, data: bytes, line: int) -> RawBatch:
        records = _decoded(data, data.count(b"\n") + (not data.endswith(b"\n")))
        if records is not None:
            return self._batch(records, lambda row: f"{self._label}, line {line + row}", ())
        texts = [(line + at, text) for at, text in enumerate(data.split(b"\n")) if text.strip(_SPACE)]
        return self._one_by_one(texts, "line")

    def _array(self, text: Utf8Stream, rest: bytes) -> Iterator[RawBatch]:
        cutter = _ArrayCutter(text, rest, self._label)
        before = 0
        for elements in cutter:
            texts = list(enumerate(elements, before + 1))
            before += len(elements)
            records = _decoded(b"\n".join(elements), len(elements))
            if records is not None:
                first = before - len(elements) + 1
                yield self._batch(records, _places(self._label, first), ())
            else:
                yield self._one_by_one(texts, "record")

    def _one_by_one(self, texts: Sequence[tuple[int, bytes]], unit: str) -> RawBatch:
        records: list[dict[str, Any]] = []
        places: list[int] = []
        unreadable: list[Unreadable] = []
        for place, text in texts:
            try:
                records.append(_strictly(text))
                places.append(place)
            except _BrokenRecordError as error:
                unreadable.append(Unreadable(f"{self._label}, {unit} {place}", str(error)))
        return self._batch(records, lambda row: f"{self._label}, {unit} {places[row]}", unreadable)

    def _batch(
        self, records: list[dict[str, Any]], locate: Callable[[int], str], unreadable: Sequence[Unreadable]
    ) -> RawBatch:
        names: dict[str, None] = {}
        for record in records:
            if not record.keys() <= names.keys():
                names.update(dict.fromkeys(record))
        return RawBatch(columns_of(records, list(names)), len(records), locate, unreadable)


class _BrokenRecordError(ValueError):
    """One record that is no JSON object; its message says why."""


class _ArrayCutter:
    """Cuts the elements of a top-level array out of a stream, whatever is inside of them.

    Strings and nesting are followed on the bytes of whole blocks, so that one broken element, or one
    that is nested too deep, costs only itself.
    """

    def __init__(self, text: Utf8Stream, rest: bytes, label: str) -> None:
        self._text = text
        self._rest = rest[1:]
        self._label = label

    def __iter__(self) -> Iterator[list[bytes]]:
        data = self._rest
        first = True
        while True:
            block = self._text.read(max(_CHUNK_BYTES, len(data)))
            data += block
            ends, close = _element_ends(data)
            if not block and close is None:
                raise SourceError(
                    f"{self._label} ends in the middle of its array: it is cut short; fetch it again."
                )
            elements, at = [], 0
            for end in ends:
                elements.append(data[at:end].strip(_SPACE))
                at = end + 1
            if close is not None:
                last = data[at:close].strip(_SPACE)
                if last or elements or not first:
                    elements.append(last)
                self._check_after(data[close + 1 :])
            if elements:
                first = False
                yield elements
            if close is not None:
                return
            data = data[at:]
            if len(data) > LONGEST_RECORD:
                raise SourceError(f"A record of {self._label} is longer than {LONGEST_RECORD >> 20} MiB.")

    def _check_after(self, rest: bytes) -> None:
        while True:
            if rest.strip(_SPACE):
                raise SourceError(
                    f"{self._label} goes on after the end of its array; several arrays in one file are not JSON."
                )
            rest = self._text.read(_CHUNK_BYTES)
            if not rest:
                return


def _element_ends(data: bytes) -> tuple[list[int], int | None]:
    """Give the commas between elements, and the bracket that closes the array if it is there.

    `data` begins at an element of the array. A comma or closing bracket counts where it is outside
    of strings and no bracket or brace is open.
    """
    content = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(content == 34)
    if b"\\" in data:
        quotes = quotes[~_escaped(content, quotes)]
    signs = np.flatnonzero(_STRUCTURE[content])
    signs = signs[np.searchsorted(quotes, signs) % 2 == 0]
    kinds = content[signs]
    depth = np.cumsum(_STEP[kinds])
    closing = np.flatnonzero(depth < 0)
    close = None
    if len(closing):
        close = int(signs[closing[0]])
        kinds, depth, signs = kinds[: closing[0]], depth[: closing[0]], signs[: closing[0]]
    commas: list[int] = signs[(kinds == 44) & (depth == 0)].tolist()
    return commas, close


def _escaped(content: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """Tell which quotes follow an odd number of backslashes."""
    others = np.flatnonzero(content != 92)
    # The last byte before each quote that is no backslash; the bytes between are.
    at = np.searchsorted(others, quotes) - 1
    before = np.where(at >= 0, others[np.maximum(at, 0)], -1) if len(others) else np.full(len(quotes), -1)
    escaped: np.ndarray = (quotes - before - 1) % 2 == 1
    return escaped


def _decoded(data: bytes, expected: int) -> list[dict[str, Any]] | None:
    """Decode many records in one go, or give None if any of them needs a closer look."""
    try:
        records = _DECODER.decode_lines(data)
        sound = len(records) == expected and _no_repeated_names(data, records)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return records if sound else None


def _strictly(text: bytes) -> dict[str, Any]:
    """Decode one record, or say what is wrong with it."""
    try:
        record = _ANY.decode(text)
        repeated = isinstance(record, dict) and not _no_repeated_names(text, [record])
    except RecursionError:
        raise _BrokenRecordError(f"it is nested deeper than {DEEPEST} levels") from None
    except UnicodeDecodeError:
        raise _BrokenRecordError(
            "it is not valid UTF-8; if the file is in another encoding, name it by --encoding"
        ) from None
    except msgspec.MsgspecError as error:
        raise _BrokenRecordError(_reason(text, error)) from None
    if not isinstance(record, dict):
        raise _BrokenRecordError(f"it is no object but {_named(record)}")
    if repeated:
        _refuse_repeated_names(text)
    return record


def _reason(text: bytes, error: Exception) -> str:
    message = str(error)
    if not text:
        return "there is nothing between two commas"
    if _SURROGATE.search(text) and ("truncated" in message or "surrogate" in message):
        return "it holds a lone surrogate, which is no valid text"
    if "truncated" in message:
        return "it is cut short"
    if "out of range" in message:
        return "it holds a number of more than 4300 digits"
    if b"NaN" in text or b"Infinity" in text:
        return "it is no valid JSON; NaN and Infinity are no JSON numbers"
    return f"it is no valid JSON: {message.removeprefix('JSON is malformed: ')}"


def _named(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", _NULL: "null"}
    return names.get(type(value), "a number")


def _no_repeated_names(data: bytes, records: Sequence[Any]) -> bool:
    """Prove that no object names a member twice, or fail to.

    Each member has a colon, right after the quote of its name or after space. If these colons are no
    more than the members that were decoded, none was overwritten. Colons inside of strings only make
    the proof fail.
    """
    colons = sum(data.count(sign) for sign in (b'":', b" :", b"\t:", b"\n:", b"\r:"))
    if colons == sum(map(len, records)) and b"[" not in data:
        return True  # flat records: as many colons as members, and no arrays that could nest deep
    return colons == sum(map(_members, records))


def _members(value: Any, depth: int = 1) -> int:
    """Count the members of all objects in a value; raises `RecursionError` beyond `DEEPEST`."""
    if depth > DEEPEST:
        raise RecursionError
    named = type(value) is dict
    items = value.values() if named else value
    inner = sum(_members(item, depth + 1) for item in items if type(item) in _NESTED)
    return inner + len(value) if named else inner


def _refuse_repeated_names(text: bytes) -> None:
    def pairs(members: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in members]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _BrokenRecordError(f"it names {json.dumps(twice, ensure_ascii=False)} twice in one object")

    json.loads(text, object_pairs_hook=pairs, parse_float=str, parse_int=str)


def _first_bytes(text: Utf8Stream) -> bytes:
    """Read on to the first byte that is no white space; empty at the end of the file."""
    while block := text.read(1 << 16):
        head = block.lstrip(_SPACE)
        text.skipped_lines += block[: len(block) - len(head)].count(b"\n")
        if head:
            return head
    return b""


def _places(label: str, first: int) -> Callable[[int], str]:
    return lambda row: f"{label}, record {first + row}"


_NULL = type(None)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NESTED = {dict, list}
_STEP = np.zeros(256, np.int64)
_STEP[[91, 123]] = 1
_STEP[[93, 125]] = -1
_STRUCTURE = _STEP != 0
_STRUCTURE[44] = True
