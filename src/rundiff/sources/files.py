"""Files as sources: paths, globs and standard input, of every format that Rundiff reads."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa

from rundiff.errors import ConfigurationError, KeyFieldMissing, SourceError
from rundiff.sources.bytestream import COMPRESSIONS, ByteStream
from rundiff.sources.columnar import ArrowFile, ParquetFile
from rundiff.sources.contract import Reading, ReadRequest
from rundiff.sources.delimited import DelimitedFile
from rundiff.sources.jsonlines import JsonFile
from rundiff.sources.jsontypes import JsonFields
from rundiff.sources.textreading import FieldKind, Pass, RawBatch, TextFields, TextReading
from rundiff.sources.typedreading import TypedReading, check_names

__all__ = ["KINDS", "FileSource", "StandardInput"]

KINDS: Mapping[str, str] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".txt": "delimited",
    ".json": "json",
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""Kinds of files by extension, which may be followed by one of a compression."""


class _TextFile(Protocol):
    def check(self) -> Sequence[str] | None: ...

    def batches(self, walk: Pass, newline_expected: bool) -> Iterator[RawBatch]: ...


class _TypedFile(Protocol):
    def check(self) -> pa.Schema: ...

    def batches(self, walk: Pass) -> Iterator[tuple[pa.RecordBatch, Callable[[int], str]]]: ...


class FileSource:
    """One file, or all files that a pattern names, in the order of their paths."""

    may_delete_without_count = True

    def __init__(self, pattern: str) -> None:
        if Path(pattern).is_dir():
            raise SourceError(f"{pattern} is a folder; name a file, or a pattern such as '{pattern}/*.csv'.")
        self._pattern = pattern
        self.location = str(Path(pattern).absolute())
        self._kind = _kind_of(pattern)

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[Reading]:
        """Begin one reading; see `contract.Source`."""
        paths = self._paths()
        single = len(paths) == 1 and str(paths[0]) == self._pattern
        labels = [path.name if single else str(path) for path in paths]
        if self._kind in {"parquet", "arrow"}:
            typed = [
                ParquetFile(path, label) if self._kind == "parquet" else ArrowFile(path, label)
                for path, label in zip(paths, labels, strict=True)
            ]
            yield _typed_reading(typed, paths, labels, request)
        else:
            yield _text_reading(self._kind, paths, labels, request)

    def _paths(self) -> list[Path]:
        path = Path(self._pattern)
        if path.exists() or not glob.has_magic(self._pattern):
            paths = [path]
        else:
            found = (Path(name) for name in sorted(_matches(self._pattern)))
            paths = [path for path in found if not path.is_dir()]
            if not paths:
                raise SourceError(f"No file matches {self._pattern}.")
        for path in paths:
            if _kind_of(str(path)) != self._kind:
                raise ConfigurationError(
                    f"{self._pattern} names files of different kinds, such as {path.name}; name one kind at a time."
                )
            _check_file(path)
        return paths


class StandardInput:
    """What another program writes to standard input: CSV, or JSON if it begins with `[` or `{`.

    It is spooled to a temporary file first, since types need a look at every record. Its end can't be
    told from a writer that died, so it deletes only with an expected count.
    """

    location = "-"
    may_delete_without_count = False

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[Reading]:
        """Begin one reading; see `contract.Source`."""
        stream = sys.stdin.buffer if self._stream is None else self._stream
        label = "standard input"
        with tempfile.NamedTemporaryFile(prefix="rundiff-") as spool:
            shutil.copyfileobj(stream, spool, 1 << 20)
            spool.flush()
            if spool.tell() == 0:
                raise SourceError("Standard input is empty; an empty extract needs a header line, or [].")
            path = Path(spool.name)
            with ByteStream(path, label, magic=True) as start:
                head = start.read(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")
            kind = "json" if head[:1] in {b"[", b"{"} else "delimited"
            yield _text_reading(kind, [path], [label], request)


def _matches(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns


def _kind_of(name: str) -> str:
    suffixes = Path(name.lower()).suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise ConfigurationError(
            f"The kind of {name} is not known from its name; known are {', '.join(KINDS)}, each also with "
            f"{' or '.join(COMPRESSIONS)}."
        )
    return kind


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise SourceError(f"There is no file {path}.") from None
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}.") from error
    if path.is_file() and size == 0:
        raise SourceError(f"{path} is empty: even an extract without records has a header, a footer or [].")


def _text_file(kind: str, path: Path, label: str, request: ReadRequest) -> _TextFile:
    options = request.options

    def open_stream() -> ByteStream:
        return ByteStream(path, label, magic=label == "standard input")

    if kind == "delimited":
        suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
        return DelimitedFile(open_stream, label, options, "\t" if ".tsv" in suffixes else None)
    return JsonFile(open_stream, label, options.encoding, lines_only=kind == "json lines")


def _text_reading(
    kind: str, paths: Sequence[Path], labels: Sequence[str], request: ReadRequest
) -> TextReading:
    files = [_text_file(kind, path, label, request) for path, label in zip(paths, labels, strict=True)]
    sizes = [path.stat().st_size for path in paths]
    for file, label in zip(files, labels, strict=True):
        names = file.check()
        if names is not None:
            _check_key(names, label, request)

    def walk(state: Pass) -> Iterator[RawBatch]:
        for file, label, size in zip(files, labels, sizes, strict=True):
            # A file that was not there before is held to what all files did.
            expected = request.newlines.get(label, bool(request.ended_with_newline))
            yield from file.batches(state, expected)
            if len(state.newlines) > len(state.newline_of):
                state.newline_of[label] = state.newlines[-1]
            state.position = None
            state.bytes_done += size

    fields = cast("FieldKind", TextFields() if kind == "delimited" else JsonFields())
    return TextReading(walk, fields, request, sum(sizes))


def _typed_reading(
    files: Sequence[_TypedFile], paths: Sequence[Path], labels: Sequence[str], request: ReadRequest
) -> TypedReading:
    sizes = [path.stat().st_size for path in paths]
    for file, label in zip(files, labels, strict=True):
        schema = file.check()
        check_names(schema, label)
        _check_key(schema.names, label, request)

    def walk(state: Pass) -> Iterator[tuple[pa.RecordBatch, Callable[[int], str]]]:
        for file, size in zip(files, sizes, strict=True):
            yield from file.batches(state)
            state.position = None
            state.bytes_done += size

    return TypedReading(walk, request, sum(sizes))


def _check_key(names: Sequence[str], label: str, request: ReadRequest) -> None:
    missing = [name for name in request.primary_key if name not in names]
    if missing:
        raise KeyFieldMissing(
            f"{label} has no field `{missing[0]}`, which the primary key names; it has {', '.join(names)}."
        )
