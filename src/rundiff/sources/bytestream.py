"""Bytes of a file, decompressed and, where asked for, decoded to UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from rundiff.errors import ConfigurationError, SourceError

__all__ = ["COMPRESSIONS", "ByteStream", "Utf8Stream", "decompressed_to", "text_codec"]

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNDECODABLE = "\udcff"


class ByteStream:
    """A file's bytes in order; decompressed by extension, or by `magic` where a file has none.

    Arrow's decompressor takes several gzip members or zstd frames one after the other, and raises
    when the last one is cut short, so that a truncated archive never looks like a short file.
    Every failure is a `SourceError` that names the file.
    """

    def __init__(self, path: Path, label: str, *, magic: bool = False) -> None:
        self.label = label
        try:
            if path.is_dir():
                raise SourceError(f"{label} is a folder; name a file, or a pattern such as '{label}/*.csv'.")
            self._raw: Any = pa.OSFile(str(path))
            codec = COMPRESSIONS.get(path.suffix.lower())
            if magic and codec is None:
                head = self._raw.read(4)
                self._raw.seek(0)
                codec = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else None
            self._stream: Any = pa.CompressedInputStream(self._raw, codec) if codec else self._raw
        except OSError as error:
            raise _failure(label, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """Bytes of the file itself that were read so far."""
        return 0 if self._raw.closed else int(self._raw.tell())

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; fewer only at the end."""
        parts: list[bytes] = []
        try:
            while size > 0 and (part := self._stream.read(size)):
                parts.append(part)
                size -= len(part)
        except (OSError, pa.ArrowException) as error:
            raise _failure(self.label, error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Utf8Stream:
    """A text file's bytes as UTF-8 without a byte order mark.

    UTF-8 passes through as it is: invalid sequences are for the reader of records to find. In other
    encodings, what can't be decoded becomes an invalid UTF-8 sequence, found in the same way.
    """

    def __init__(self, stream: ByteStream, encoding: str | None) -> None:
        self._stream = stream
        self.skipped_lines = 0
        """Line ends that a reader passed over before the first record; kept for line numbers."""
        head = stream.read(4)
        mark, marked = next(((mark, name) for mark, name in _BOMS if head.startswith(mark)), (b"", None))
        name = text_codec(encoding) if encoding is not None else marked or "utf-8"
        if marked is not None and (encoding is None or marked.startswith(name)):
            head, name = head[len(mark) :], marked
        self._rest = head
        self._decoder = None if name == "utf-8" else codecs.getincrementaldecoder(name)(_ERRORS)
        self._ended = False

    def read(self, size: int) -> bytes:
        """Give about `size` bytes; empty only at the end."""
        if self._decoder is None:
            rest, self._rest = self._rest, b""
            return rest + self._stream.read(size - len(rest))
        while not self._ended:
            block = self._rest + self._stream.read(size)
            self._rest = b""
            self._ended = not block
            text = self._decoder.decode(block, final=self._ended)
            if text:
                return text.encode("utf-8", "surrogatepass")
        return b""


def text_codec(encoding: str) -> str:
    """Give Python's name of an encoding; raises `ConfigurationError` for one it doesn't know."""
    try:
        name = codecs.lookup(encoding).name
        b"".decode(name)
        "".encode(name)
    except LookupError:
        raise ConfigurationError(
            f"The encoding `{encoding}` is not known; examples are utf-8, utf-16, latin-1 and cp1252."
        ) from None
    return "utf-8" if name == "utf-8-sig" else name


def decompressed_to(path: Path, label: str, target: Any) -> None:
    """Write a compressed file's content to an open file, for formats that need to seek."""
    with ByteStream(path, label) as stream:
        for block in _blocks(stream):
            target.write(block)
    target.flush()


def _blocks(stream: ByteStream, size: int = 1 << 22) -> Iterator[bytes]:
    while block := stream.read(size):
        yield block


def _failure(label: str, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError(f"There is no file {label}.")
    if isinstance(error, PermissionError):
        return SourceError(f"{label} can't be read: permission denied.")
    if "Truncated" in str(error):
        return SourceError(f"{label} is cut short: its compressed data ends in the middle; fetch it again.")
    return SourceError(f"{label} can't be read: {error}")


def _mark_undecodable(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _UNDECODABLE, error.end


_ERRORS = "rundiff.undecodable"
codecs.register_error(_ERRORS, _mark_undecodable)
