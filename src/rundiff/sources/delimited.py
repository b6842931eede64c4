"""CSV, TSV and their like: RFC 4180 with any one-character delimiter, read as text first."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from rundiff.errors import ConfigurationError, SourceError
from rundiff.settings import SourceOptions
from rundiff.sources.bytestream import ByteStream, Utf8Stream
from rundiff.sources.contract import Unreadable
from rundiff.sources.records import LONGEST_RECORD, Broken, Chunk, RecordCutter, record_pattern
from rundiff.sources.textreading import NO_NEWLINE, Pass, RawBatch

__all__ = ["DelimitedFile"]

_CONTENT = re.compile(rb"[^\r\n]")
_SNIFFED = (",", ";", "\t", "|")
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_NOT_UTF8 = "is not valid UTF-8; if the file is in another encoding, name it by --encoding"


class _Header(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    delimiter: str
    line_end: bytes
    rest: bytes
    """What was read of the file beyond the header."""
    next_line: int
    terminated: bool


class DelimitedFile:
    """The records of one delimited file."""

    def __init__(
        self,
        open_stream: Callable[[], ByteStream],
        label: str,
        options: SourceOptions,
        default_delimiter: str | None,
    ) -> None:
        self._open = open_stream
        self._label = label
        self._options = options
        self._delimiter = _delimiter_of(options.delimiter) or default_delimiter

    def check(self) -> Sequence[str]:
        """Give the names of the fields; raises `SourceError` for a file without a usable header."""
        with self._open() as stream:
            return self._header(Utf8Stream(stream, self._options.encoding)).names

    def batches(self, walk: Pass, newline_expected: bool) -> Iterator[RawBatch]:
        """Read the records chunk by chunk.

        With `newline_expected`, a file that ends without a newline is incomplete, and its last
        record unreadable (design section 2).
        """
        with self._open() as stream:
            walk.position = lambda: stream.position
            text = Utf8Stream(stream, self._options.encoding)
            header = self._header(text)
            parser = _ChunkParser(self._label, header, self._options.null)
            sign = header.delimiter.encode()
            ended_with_newline = header.terminated
            for chunk in RecordCutter(text, sign, header.rest, header.next_line, header.line_end):
                if chunk.data:
                    yield parser.parse(chunk)
                    ended_with_newline = True
                if chunk.tail:
                    ended_with_newline = False
                    yield self._tail(parser, chunk, header, newline_expected, walk)
            walk.newlines.append(ended_with_newline)
            if newline_expected and not ended_with_newline:
                walk.incomplete.append(f"{self._label}: {NO_NEWLINE}")

    def _tail(
        self, parser: _ChunkParser, chunk: Chunk, header: _Header, newline_expected: bool, walk: Pass
    ) -> RawBatch:
        line = chunk.first_line + chunk.data.count(header.line_end)
        if chunk.tail_unterminated:
            reason = "a quoted value does not end before the file does"
            walk.incomplete.append(
                f"{self._label}: the file ends inside of a quoted value, in the record of line {line}"
            )
        elif newline_expected:
            reason = NO_NEWLINE
        else:
            return parser.parse(Chunk(chunk.tail + header.line_end, line))
        return RawBatch({}, 0, lambda _: "", [Unreadable(f"{self._label}, line {line}", reason)])

    def _header(self, stream: Utf8Stream) -> _Header:
        data = b""
        size = 1 << 16
        while True:
            block = stream.read(size)
            data += block
            size = max(size, len(data))
            found = _first_line(data, ended=not block)
            if found is not None:
                break
            if len(data) > LONGEST_RECORD:
                raise SourceError(f"{self._label} has no end of its first line; is it a text file?")
        line, start, end, line_end = found
        if not line:
            raise SourceError(
                f"{self._label} is empty; a header line with the names of the fields is needed."
            )
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise SourceError(
                f"The header of {self._label} is not valid UTF-8; name its encoding, for example --encoding cp1252."
            ) from None
        delimiter = self._delimiter or _sniffed(text)
        try:
            names = tuple(_names(text, delimiter))
        except csv.Error as error:
            raise SourceError(
                f"The header of {self._label} can't be read: {error}; is it a text file?"
            ) from None
        self._check_names(names)
        lines = data[:end].count(line_end) if end > start + len(line) else 1
        return _Header(names, delimiter, line_end, data[end:], lines + 1, end > start + len(line))

    def _check_names(self, names: Sequence[str]) -> None:
        empty = [str(place) for place, name in enumerate(names, 1) if not name.strip()]
        if empty:
            raise SourceError(
                f"The header of {self._label} has no name for column {', '.join(empty)} of {len(names)}; give each one."
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise SourceError(
                f"The header of {self._label} names more than one column {', '.join(map(repr, twice))}; rename them."
            )


class _ChunkParser:
    """Turns chunks of whole records into columns of text."""

    def __init__(self, label: str, header: _Header, null: Sequence[str]) -> None:
        self._label = label
        self._header = header
        self._nulls = ["", *null]
        self._pattern = record_pattern(header.delimiter.encode())

    def parse(self, chunk: Chunk) -> RawBatch:
        """Read one chunk; records with too few or too many values, or invalid UTF-8, are set aside."""
        if not (chunk.data.isascii() or _is_utf8(chunk.data)):
            chunk = replace(chunk, broken=tuple(self._broken_or_undecodable(chunk)))
        lines = _Lines(chunk, self._pattern, self._header.line_end)
        unreadable = [
            Unreadable(f"{self._label}, line {line}", one.reason, one.field)
            for one, line in zip(chunk.broken, lines.broken(), strict=True)
        ]
        ragged: list[tuple[int, int]] = []
        batch = self._read(chunk.sound(), ragged)
        if batch is None:
            return RawBatch({}, 0, lambda _: "", unreadable)
        expected = len(self._header.names)
        unreadable += [
            Unreadable(
                f"{self._label}, line {lines.of(place)}",
                f"expected {expected} values, one for each field of the header, but found {found}",
            )
            for place, found in ragged
        ]

        def locate(row: int) -> str:
            # Rows count on without the ragged ones before them.
            place = row
            for skipped, _ in ragged:
                place += skipped <= place
            return f"{self._label}, line {lines.of(place)}"

        columns = dict(zip(self._header.names, batch.columns, strict=True))
        return RawBatch(columns, batch.num_rows, locate, unreadable)

    def _broken_or_undecodable(self, chunk: Chunk) -> Iterator[Broken]:
        """Add the records with invalid UTF-8 to the broken ones, in the order of the file."""
        known = {one.start: one for one in chunk.broken}
        for found in self._pattern.finditer(chunk.data):
            if found.start() in known:
                yield known[found.start()]
            elif not _is_utf8(found.group()):
                field = self._undecodable_field(found.group())
                where = f"the field `{field}`" if field else "it"
                yield Broken(found.start(), found.end(), f"{where} {_NOT_UTF8}", field)

    def _undecodable_field(self, record: bytes) -> str | None:
        # Latin-1 takes every byte to a character and back, so that the delimiters can be found.
        text = record.decode("latin-1")
        try:
            values = next(csv.reader([text], delimiter=self._header.delimiter), [])
        except csv.Error:  # a value longer than that reader takes
            return None
        for name, value in zip(self._header.names, values, strict=False):
            if not _is_utf8(value.encode("latin-1")):
                return name
        return None

    def _read(self, data: bytes, ragged: list[tuple[int, int]]) -> pa.RecordBatch | None:
        import pyarrow.csv as arrow_csv

        names = list(self._header.names)

        def handle(row: arrow_csv.InvalidRow) -> str:
            ragged.append((-1 if row.number is None else row.number - 1, row.actual_columns))
            return "skip"

        def read(threads: bool) -> pa.Table:
            return arrow_csv.read_csv(
                pa.BufferReader(data),
                read_options=arrow_csv.ReadOptions(
                    use_threads=threads, block_size=len(data) + 1, column_names=names
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self._header.delimiter, newlines_in_values=True, invalid_row_handler=handle
                ),
                convert_options=arrow_csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=self._nulls,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )

        if not _CONTENT.search(data):
            return None
        table = read(threads=True)
        if ragged:
            # Arrow numbers the rows only when it reads with one thread.
            ragged.clear()
            table = read(threads=False)
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


class _Lines:
    """The line of each sound record of a chunk, found out when somebody asks."""

    def __init__(self, chunk: Chunk, pattern: re.Pattern[bytes], line_end: bytes) -> None:
        self._chunk = chunk
        self._pattern = pattern
        self._line_end = line_end
        self._lines: list[int] | None = None

    def of(self, place: int) -> int:
        """Give the line of the record at a place among those that are neither blank nor broken."""
        if self._lines is None:
            self._lines = list(self._walk())
        return self._lines[place]

    def broken(self) -> list[int]:
        """Give the lines of the broken records."""
        data, at, line, lines = self._chunk.data, 0, self._chunk.first_line, []
        for one in self._chunk.broken:
            line += data.count(self._line_end, at, one.start)
            at = one.start
            lines.append(line)
        return lines

    def _walk(self) -> Iterator[int]:
        data, line = self._chunk.data, self._chunk.first_line
        broken = {one.start for one in self._chunk.broken}
        for found in self._pattern.finditer(data):
            if found.start() not in broken and found.group().strip(b"\r\n"):
                yield line
            line += data.count(self._line_end, found.start(), found.end())


def _is_utf8(data: bytes) -> bool:
    view = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(_span(len(data))), pa.py_buffer(data)]
    )
    try:
        view.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _span(length: int) -> bytes:
    return (0).to_bytes(8, "little") + length.to_bytes(8, "little")


def _first_line(data: bytes, *, ended: bool) -> tuple[bytes, int, int, bytes] | None:
    """Find the first line that is not blank: itself, its start, where it ends, and its line end."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    quoted = False
    for found in re.finditer(rb'["\r\n]', data[start:]):
        sign = found.group()
        if sign == b'"':
            quoted = not quoted
        elif not quoted:
            at = start + found.start()
            if sign == b"\n":
                return data[start:at], start, at + 1, b"\n"
            if data[at + 1 : at + 2] == b"\n":
                return data[start:at], start, at + 2, b"\n"
            if at + 1 < len(data) or ended:
                return data[start:at], start, at + 1, b"\r"
    if not ended:
        return None
    if quoted:
        return data[start:], start, len(data), b"\n"
    return data[start:], start, len(data), b"\n"


def _sniffed(header: str) -> str:
    counts = Counter(re.sub(r'"(?:[^"]|"")*"', "", header))
    return max(_SNIFFED, key=lambda sign: counts[sign])


def _names(header: str, delimiter: str) -> list[str]:
    return next(csv.reader([header], delimiter=delimiter), [])


def _delimiter_of(given: str | None) -> str | None:
    if given is None:
        return None
    delimiter = _SPELLED.get(given.lower(), given)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise ConfigurationError(
            f"The delimiter {given!r} can't be used: it must be one ASCII character and no quote or line end."
        )
    return delimiter
