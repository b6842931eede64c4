"""Destinations of one file a run: what they have in common, wherever the files are and whatever they hold.

A run's file is written aside and appears whole, under its name, when the run's delivery ends. No
watermark is kept: a delivery that was broken off is repeated from its first change.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.errors import DestinationError, Fenced, RecordsRefused
from rundiff.model import Action

__all__ = ["RunFile", "RunFormat", "WholeRuns"]

_CAPABILITIES = Capabilities(
    new_action=Action.CREATE, transactional=False, upserts=True, wants_previous=True, whole_runs=True
)


class RunFile(Protocol):
    """The content of one run's file, while it is written."""

    def write(self, batch: ChangeBatch) -> None:
        """Add a batch, whose data is of the type that the file was begun with."""

    def end(self) -> None:
        """Write what ends the content; the stream below stays open."""

    def abandon(self) -> None:
        """Write nothing more; the content is given up."""


class RunFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's file holds."""

    ending: str
    """Of a file's name, with the dot."""
    title: str
    """As in "a Parquet destination"."""
    media_type: str
    """What servers are told that a file is."""
    check: Callable[[Mapping[str, pa.DataType]], None]
    """Refuses fields that no file of the format takes, by `ConfigurationError`."""
    begin: Callable[[BinaryIO, Target, pa.StructType], RunFile]
    """Begins the content of a file whose `data` is of this type."""
    owner: Callable[[Path], str | None]
    """Reads the sync_id of a file's first change; None if no sync wrote it."""


class WholeRuns(ABC):
    """A place that gets a file for each run with changes."""

    def __init__(self, format: RunFormat) -> None:  # noqa: A002 -- the word that says it
        self._format = format
        self._at: Position | None = None
        self._run: int | None = None
        """The run that this instance was given from its first change on."""
        self._schema = pa.schema([])
        self._kind: pa.DataType = pa.null()
        self._file: RunFile | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Files show a run at once, so a broken delivery is repeated whole."""
        return _CAPABILITIES

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name the place."""

    @abstractmethod
    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse a place that can't be written, and fields that no file takes."""

    @abstractmethod
    def _take_over(self, target: Target) -> None:
        """Drop what this sync's broken deliveries left, and keep their workers from going on."""

    @abstractmethod
    def _open(self, target: Target, run: int) -> BinaryIO:
        """Open a stream for the content of a run's file, out of sight."""

    @abstractmethod
    def _publish(self, target: Target, run: int) -> None:
        """Give the content its name; nothing of it is lost after that."""

    @abstractmethod
    def _drop(self) -> None:
        """Give the content up, if there is any."""

    @abstractmethod
    def _translated(self, error: Exception) -> Exception | None:
        """Give a failure of the place as a `DestinationError`, None for any other error."""

    def position(self, target: Target) -> Position | None:
        """Give None: files keep no watermark, the database's acknowledgements stand."""
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        """Name nobody: each change says whose it is, and no file replaces another sync's."""
        return ()

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:  # noqa: B027 -- nothing is meant
        """Do nothing: there are no marks."""

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Give all false: a stream of changes can't know."""
        return pa.array([False] * keys.num_rows)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Note the fields, so that a file has a place for all of them from its first change on."""
        self._schema = schema

    def claim(self, target: Target, start: Position) -> None:
        """Drop what this sync's broken deliveries left."""
        self._abandon()
        with self._failures():
            self._take_over(target)
        self._at = Position(run=start.run, sequence=start.sequence)
        self._run = None

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Write the batch into the run's hidden file; `finish` shows it."""
        self._go_on(expected, batch.run)
        if batch.records.num_rows:
            with self._failures():
                self._append(target, batch)
        self._at = Position(run=batch.run, sequence=batch.last_sequence)
        return self._at

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Write nothing."""
        self._go_on(expected, reached.run)
        self._at = Position(run=reached.run, sequence=reached.sequence)
        return self._at

    def finish(self, target: Target, reached: Position) -> None:
        """Make the run's file durable and give it its name."""
        file, self._file = self._file, None
        if file is None or self._run is None:
            return
        try:
            with self._failures():
                file.end()
                self._publish(target, self._run)
        finally:
            file.abandon()
            self._drop()

    def close(self) -> None:
        """Drop a run that was not finished."""
        self._abandon()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.abandon()
        self._drop()

    def _go_on(self, expected: Position, run: int) -> None:
        """Refuse what does not follow on what was written; a run begins at its first change."""
        if self._at is None or (self._at.run, self._at.sequence) != (expected.run, expected.sequence):
            raise Fenced(
                f"{self.identity} is not at run {expected.run}, sequence {expected.sequence}: claim it anew."
            )
        if expected.run < run or expected.sequence == 0:
            self._run = run
        if self._run != run:
            raise DestinationError(
                f"Run {run} was not delivered to its end: it has to be delivered again from its first change."
            )

    def _append(self, target: Target, batch: ChangeBatch) -> None:
        from rundiff.baseline.columns import conform, unify_types

        data = batch.records.column("data")
        if self._file is None:
            # Deletes come first, and their fields may be older than those that were prepared for.
            key = batch.records.column("primary_key").type
            kind = unify_types(unify_types(pa.struct(list(self._schema)), key), data.type)
            self._file = self._format.begin(self._open(target, batch.run), target, kind)
            self._kind = kind
        if not unify_types(self._kind, data.type).equals(self._kind):
            raise DestinationError(
                f"{self.identity} has no place for some fields of run {batch.run}, which it was not prepared for: "
                "run again."
            )
        columns = dict(zip(batch.records.schema.names, batch.records.columns, strict=True))
        columns["data"] = conform(data, self._kind)
        self._file.write(replace(batch, records=pa.record_batch(columns)))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except DestinationError:
            raise
        except pa.ArrowException as error:
            raise RecordsRefused(f"{self.identity} can't take the data: {error}.") from error
        except Exception as error:
            translated = self._translated(error)
            if translated is None:
                raise
            raise translated from error
