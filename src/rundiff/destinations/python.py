"""A Python function or object that takes the changes, in batches of `SyncWriteRecord`.

A function gets a list of write records of one action and returns None when all were written, or pairs of
(record, reason) for those that it refuses. If it raises, nothing of the batch counts as written, and
the batch is halved until the records that it can't take stand alone; `DestinationError` stops the run.
An object has such a method `write`, and perhaps `close`. At least once: `idempotency_key` tells a repeat.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from rundiff.destinations.contract import (
    Capabilities,
    ChangeBatch,
    Delivered,
    Destination,
    NotWritten,
    Position,
    Target,
)
from rundiff.destinations.markless import Markless
from rundiff.destinations.objects import write_records
from rundiff.errors import ConfigurationError, RecordsRefused, RundiffError
from rundiff.model import Action, SyncWriteRecord

__all__ = ["PythonDestination", "open_python"]

Refused = Iterable[tuple[SyncWriteRecord, str]]
Write = Callable[[list[SyncWriteRecord]], Refused | None]

_BATCH_RECORDS = 10_000
"""Records are objects here, which take memory."""


def open_python(given: Any) -> Destination:
    """Open a function, an object with `write`, or one that keeps the whole contract of destinations."""
    if hasattr(given, "deliver") and hasattr(given, "capabilities"):
        whole: Destination = given
        return whole
    write = getattr(given, "write", given)
    if not callable(write) or isinstance(given, type):
        raise ConfigurationError(
            "destination= takes a URL, a function of a list of write records, or an object with such a method write."
        )
    return PythonDestination(given, write)


class PythonDestination(Markless):
    """A function or an object with `write`."""

    def __init__(self, given: Any, write: Write) -> None:
        self._given = given
        self._write = write
        self.capabilities = Capabilities(
            new_action=Action.CREATE,
            transactional=False,
            upserts=True,
            wants_previous=True,
            batch_records=_BATCH_RECORDS,
        )
        """Functions take creates, at least once."""

    @property
    def identity(self) -> str:
        """`python:`, the module and the name; an object is known by its class."""
        named = self._given if hasattr(self._given, "__qualname__") else type(self._given)
        return f"python:{named.__module__}.{named.__qualname__}"

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Nothing can be judged beforehand."""

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Hand the batch over."""
        if batch.records.num_rows == 0:
            return Position(run=batch.run, sequence=batch.last_sequence)
        records = list(write_records(batch, target.sync_id, batch.sealed_at or datetime.now(UTC)))
        try:
            refused = self._write(records)
            aside = [] if refused is None else [_refusal(item, batch) for item in refused]
        except RundiffError:
            raise
        except Exception as error:  # whatever the user's code raises refuses the batch
            raise RecordsRefused(f"{type(error).__name__}: {error}") from error
        return Delivered(
            run=batch.run,
            sequence=batch.last_sequence,
            not_written=tuple(sorted(aside, key=lambda item: item.sequence)),
        )

    def close(self) -> None:
        """Close an object that can be."""
        close = getattr(self._given, "close", None)
        if callable(close) and self._write is not self._given:
            close()


def _refusal(item: Any, batch: ChangeBatch) -> NotWritten:
    match item:
        case (SyncWriteRecord() as record, reason) if (
            batch.first_sequence <= record.sequence <= batch.last_sequence
        ):
            return NotWritten(sequence=record.sequence, error=str(reason))
    raise ConfigurationError(
        "The destination's function must return None, or pairs of (record, reason) of records that it was given."
    )
