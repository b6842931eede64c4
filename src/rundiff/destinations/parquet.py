"""The change stream as Parquet: a folder with one file per run, each appearing whole.

A file is written under a temporary name, made durable, and renamed when the run's delivery ends. A
delivery that was broken off leaves a temporary file, which the next one removes and writes anew.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.columns import repeating_fields
from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.destinations.kinds import Kind, decimal_digits, kind_of
from rundiff.destinations.places import check_folder, sync_folder
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import plain_text
from rundiff.errors import ConfigurationError, DestinationError, Fenced, RecordsRefused
from rundiff.model import Action

__all__ = ["ParquetFolder", "open_folder"]

_CAPABILITIES = Capabilities(
    new_action=Action.CREATE, transactional=False, upserts=True, wants_previous=True, whole_runs=True
)
_OWNER = b"rundiff_sync_id"
_MOST_DIGITS = 38
_PLAIN = {
    Kind.BOOLEAN,
    Kind.INTEGER,
    Kind.UNSIGNED,
    Kind.FLOAT,
    Kind.TEXT,
    Kind.BINARY,
    Kind.DATE,
    Kind.TIME,
    Kind.TIMESTAMP,
}
"""Kinds that stand nested in a file as they are; anything else makes the whole value JSON text."""
_TEXT = pa.large_string()


def open_folder(path: str) -> ParquetFolder:
    """Open a folder of Parquet files; nothing is touched yet."""
    return ParquetFolder(Path(os.path.realpath(path)))


@dataclass(slots=True)
class _Open:
    """A run's file while it is written."""

    path: Path
    schema: pa.Schema
    file: BinaryIO
    writer: Any


class ParquetFolder:
    """A folder that gets `run-00000003.parquet` for each run with changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at: Position | None = None
        self._run: int | None = None
        """The run that this instance was given from its first change on."""
        self._open: _Open | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Files show a run at once, so a broken delivery is repeated whole."""
        return _CAPABILITIES

    @property
    def identity(self) -> str:
        """The absolute path."""
        return str(self._folder)

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse a path that is no folder or can't be written, and types that no file takes."""
        for arrow_type in (fields or {}).values():
            kind_of(arrow_type)
        if self._folder.is_dir():
            check_folder(self._folder)
        elif self._folder.exists():
            raise ConfigurationError(
                f"{self._folder} is a file: a Parquet destination is a folder, name another path."
            )
        else:
            check_folder(self._folder.parent)

    def position(self, target: Target) -> Position | None:
        """Give None: a folder keeps no watermark, the database's acknowledgements stand."""
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        """Name nobody: each row says whose it is, and no file replaces another sync's."""
        return ()

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Do nothing: there are no marks."""

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Give all false: a stream of changes can't know."""
        return pa.array([False] * keys.num_rows)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Create the folder."""
        with self._failures():
            if not self._folder.exists():
                self._folder.mkdir()
                sync_folder(self._folder.parent)

    def claim(self, target: Target, start: Position) -> None:
        """Drop what this sync's broken deliveries left."""
        self._abandon()
        with self._failures():
            for left in self._folder.glob(f".run-*.{target.sync_id}.*.part"):
                left.unlink(missing_ok=True)
        self._at = Position(run=start.run, sequence=start.sequence)
        self._run = None

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Write the batch into the run's hidden file; `finish` shows it."""
        self._go_on(expected, batch.run)
        if batch.records.num_rows:
            with self._failures():
                self._append(target, _rows(target, batch))
        self._at = Position(run=batch.run, sequence=batch.last_sequence)
        return self._at

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Write nothing."""
        self._go_on(expected, reached.run)
        self._at = Position(run=reached.run, sequence=reached.sequence)
        return self._at

    def finish(self, target: Target, reached: Position) -> None:
        """Make the run's file durable and give it its name."""
        if self._open is None:
            return
        done = self._open
        self._open = None
        with self._failures():
            done.writer.close()
            done.file.flush()
            os.fsync(done.file.fileno())
            done.file.close()
            try:
                done.path.replace(self._final(target))
            except FileNotFoundError:
                raise Fenced(
                    f'Another worker took "{target.sync}" over and removed what this one had written: it stops.'
                ) from None
            sync_folder(self._folder)

    def close(self) -> None:
        """Drop a run that was not finished."""
        self._abandon()

    def _go_on(self, expected: Position, run: int) -> None:
        """Refuse what does not follow on what was written; a run begins at its first change."""
        if self._at is None or (self._at.run, self._at.sequence) != (expected.run, expected.sequence):
            raise Fenced(
                f"{self._folder} is not at run {expected.run}, sequence {expected.sequence}: claim it anew."
            )
        if expected.run < run or expected.sequence == 0:
            self._run = run
        if self._run != run:
            raise DestinationError(
                f"Run {run} was not delivered to its end: it has to be delivered again from its first change."
            )

    def _append(self, target: Target, rows: pa.Table) -> None:
        import pyarrow.parquet as pq

        if self._open is None:
            path = self._folder / f".run-{self._run:08d}.{target.sync_id}.{target.token}.part"
            schema = rows.schema.with_metadata({_OWNER: target.sync_id.encode()})
            file = path.open("wb")
            repeating = ["sync", "run", "action", *_repeating(rows)]
            writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeating)
            self._open = _Open(path, schema, file, writer)
        self._open.writer.write_table(rows.cast(self._open.schema))

    def _final(self, target: Target) -> Path:
        """Name the run's file; a name that another sync took gets the sync's id."""
        path = self._folder / f"run-{self._run:08d}.parquet"
        if path.exists() and _owner(path) != target.sync_id:
            return self._folder / f"run-{self._run:08d}-{target.sync_id}.parquet"
        return path

    def _abandon(self) -> None:
        left, self._open = self._open, None
        if left is None:
            return
        with suppress(OSError, pa.ArrowException):  # it is given up anyway
            left.writer.close()
        left.file.close()
        with suppress(OSError):  # the next claim tries again
            left.path.unlink(missing_ok=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(
                f"The folder {self._folder} can't be written: {error.strerror or error}. Mend it, then run again."
            ) from error
        except pa.ArrowException as error:
            raise RecordsRefused(f"The folder {self._folder} can't take the data: {error}.") from error


def _owner(path: Path) -> str | None:
    """Read whose a file is; None if no sync wrote it."""
    import pyarrow.parquet as pq

    try:
        owner: bytes | None = (pq.read_schema(path).metadata or {}).get(_OWNER)
    except pa.ArrowException:
        return None
    return None if owner is None else owner.decode()


def _rows(target: Target, batch: ChangeBatch) -> pa.Table:
    """Give the columns of the change stream (design section 7), signatures as 32 bytes."""
    records = batch.records
    count = records.num_rows
    sequence = pa.array(np.arange(batch.first_sequence, batch.first_sequence + count, dtype=np.int64))
    prefix = pa.scalar(f"{target.sync_id}/{batch.run}/", pa.string())
    key = pc.binary_join_element_wise(prefix, pc.cast(sequence, pa.string()), pa.scalar("", pa.string()))
    columns: dict[str, pa.Array] = {
        "sync": pa.repeat(pa.scalar(target.sync), count),
        "run": pa.repeat(pa.scalar(batch.run, pa.int64()), count),
        "sequence": sequence,
        "action": pa.repeat(pa.scalar(str(batch.action)), count),
        "primary_key": _plain_struct(records.column("primary_key")),
        "data": _plain_struct(records.column("data")),
        "changed_fields": pc.cast(records.column("changed_fields"), pa.list_(pa.string())),
        "primary_key_signature": records.column("primary_key_signature"),
        "data_signature": records.column("data_signature"),
        "idempotency_key": key,
    }
    return pa.table(columns)


def _repeating(rows: pa.Table) -> list[str]:
    data = rows.column("data").chunk(0)
    return [f"data.{name}" for name in repeating_fields(data)] if pa.types.is_struct(data.type) else []


def _plain_struct(array: pa.Array) -> pa.Array:
    """Bring the members of a struct to types that all readers of Parquet know."""
    if not array.type.num_fields:
        return pa.nulls(len(array), pa.string())
    members = [_plain(member) for member in array.flatten()]
    fields = [pa.field(field.name, member.type) for field, member in zip(array.type, members, strict=True)]
    return pa.StructArray.from_arrays(members, fields=fields, mask=array.is_null())


def _plain(array: pa.Array) -> pa.Array:
    kind = kind_of(array.type)
    if kind in (Kind.NULL, Kind.INTERVAL, Kind.DURATION):
        return plain_text(array)
    if kind is Kind.MIXED or (kind is Kind.NESTED and not _is_plain(array.type)):
        return pc.if_else(array.is_valid(), json_text(array), pa.scalar(None, _TEXT))
    if kind is Kind.DECIMAL:
        precision, scale = decimal_digits(array.type)
        return (
            pc.cast(array, pa.decimal128(precision, scale))
            if precision <= _MOST_DIGITS
            else plain_text(array)
        )
    if kind is Kind.FLOAT and array.type != pa.float64():
        return pc.cast(array, pa.float32())
    return pc.cast(array, pa.date32()) if kind is Kind.DATE else array


def _is_plain(arrow_type: pa.DataType) -> bool:
    """Say whether a type can stand in a file as it is, with all that is nested in it."""
    if kind_of(arrow_type) is not Kind.NESTED:
        return kind_of(arrow_type) in _PLAIN and arrow_type != pa.float16()
    children = [arrow_type.field(n).type for n in range(arrow_type.num_fields)]
    if pa.types.is_map(arrow_type):
        children = [arrow_type.key_type, arrow_type.item_type]
    return bool(children) and all(map(_is_plain, children))
