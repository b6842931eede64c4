"""The change stream: one JSON object a line, appended to a file or written to standard output.

The contract of a line stands in design section 7. A stream keeps no watermark: its position is the
length of the file, which the database acknowledges; after a crash the file is cut back to it.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.destinations.kinds import check_kinds
from rundiff.destinations.lines import write_lines
from rundiff.destinations.places import check_file, sync_folder
from rundiff.errors import DestinationError
from rundiff.model import Action
from rundiff.settings import DestinationOptions

__all__ = ["FileStream", "StandardOutput", "open_standard_output", "open_stream"]

_CAPABILITIES = Capabilities(
    new_action=Action.CREATE, transactional=False, upserts=True, wants_previous=True, whole_runs=False
)
_BLOCK = 1 << 20


def open_stream(options: DestinationOptions) -> FileStream:
    """Open the file of JSON lines at `options.url`; nothing is touched yet."""
    return FileStream(Path(os.path.realpath(options.url or "")))


def open_standard_output(_: DestinationOptions) -> StandardOutput:
    """Open standard output."""
    return StandardOutput()


class _Stream:
    """What both streams share: they know nothing of what they hold."""

    @property
    def capabilities(self) -> Capabilities:
        """Streams take creates, at least once, with an idempotency key."""
        return _CAPABILITIES

    def position(self, target: Target) -> Position | None:
        """Give None: a stream keeps no watermark, the database's acknowledgements stand."""
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        """Name nobody: several syncs may share a stream, each line says whose it is."""
        return ()

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Do nothing: there are no marks."""

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Give all false: a stream can't know."""
        return pa.array([False] * keys.num_rows)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Do nothing: each line names its fields."""

    def finish(self, target: Target, reached: Position) -> None:
        """Do nothing: each batch is visible once it is delivered."""


class FileStream(_Stream):
    """A file of JSON lines that changes are appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def identity(self) -> str:
        """The absolute path."""
        return str(self._path)

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse a path that can't be appended to, and types without a JSON form."""
        check_kinds(fields or {})
        check_file(self._path)

    def claim(self, target: Target, start: Position) -> None:
        """Cut the file back to the start's marker, or end the line that a crash has torn.

        Nothing is cut that another sync wrote meanwhile; a file that is missing or shorter was taken
        away by its reader and is appended to as it is.
        """
        with self._failures():
            if not self._path.exists():
                return
            with _locked(self._path) as file:
                length = os.fstat(file.fileno()).st_size
                mark = None if start.marker is None else int(start.marker)
                if mark is not None and mark <= length and _only_ours(file, mark, target):
                    end = mark
                else:
                    end = _whole_lines(file, length)
                if end < length:
                    file.truncate(end)
                    os.fsync(file.fileno())

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Append the batch, all of it or nothing, and give the file's length as the marker."""
        with self._failures():
            is_new = not self._path.exists()
            with _locked(self._path) as file:
                start = file.seek(0, os.SEEK_END)
                try:
                    write_lines(file, target, batch)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
                length = file.tell()
            if is_new:
                sync_folder(self._path.parent)
        return Position(run=batch.run, sequence=batch.last_sequence, marker=str(length))

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Write nothing, and give the file's present length as the marker."""
        with self._failures():
            length = self._path.stat().st_size if self._path.exists() else 0
        return Position(run=reached.run, sequence=reached.sequence, marker=str(length))

    def close(self) -> None:
        """Do nothing: the file is open during a batch only."""

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(
                f"The change stream {self._path} can't be written: {error.strerror or error}. "
                "Mend it, then run again: delivery goes on where it stopped."
            ) from error


class StandardOutput(_Stream):
    """The change stream on standard output."""

    @property
    def identity(self) -> str:
        """A dash."""
        return "-"

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse types without a JSON form."""
        check_kinds(fields or {})

    def claim(self, target: Target, start: Position) -> None:
        """Do nothing: what was written can't be taken back."""

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Write the batch and flush it."""
        try:
            write_lines(sys.stdout.buffer, target, batch)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            _silence_standard_output()
            raise DestinationError(
                "The reader of standard output went away: run again, delivery goes on where it stopped."
            ) from error
        except OSError as error:
            raise DestinationError(f"Standard output can't be written: {error.strerror or error}.") from error
        return Position(run=batch.run, sequence=batch.last_sequence)

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Write nothing."""
        return Position(run=reached.run, sequence=reached.sequence)

    def close(self) -> None:
        """Leave standard output open: it belongs to the process."""


def _silence_standard_output() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not fail once more.

    Source: https://docs.python.org/3/library/signal.html#note-on-sigpipe.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except OSError:  # standard output was replaced by something that is no file
        return
    finally:
        os.close(nowhere)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file for appending and hold it against other syncs until the block ends."""
    with path.open("a+b") as file:
        if os.name != "nt":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _only_ours(file: BinaryIO, mark: int, target: Target) -> bool:
    """Say whether all whole lines behind a mark are this sync's."""
    key = msgspec.json.encode(target.sync_id)[1:-1]
    ours = re.compile(b'"idempotency_key":"' + re.escape(key) + rb'/\d+/\d+"\}\n\Z')
    file.seek(mark)
    return all(ours.search(line) for line in file if line.endswith(b"\n"))


def _whole_lines(file: BinaryIO, length: int) -> int:
    """Give the length without a last line that was torn; a whole one that lacks its newline gets it."""
    start = length
    while start > 0:
        begin = max(0, start - _BLOCK)
        file.seek(begin)
        newline = file.read(start - begin).rfind(b"\n")
        if newline >= 0:
            start = begin + newline + 1
            break
        start = begin
    if start == length:
        return length
    file.seek(start)
    try:
        msgspec.json.decode(file.read(length - start))
    except msgspec.DecodeError:
        return start
    file.write(b"\n")
    file.flush()
    return length + 1
