"""What a source owes a run.

Duties of a source:

1. `open` finds out whether the source can be read at all, and raises `SourceError` (missing file,
   empty file, no header, unknown format) before the run begins.
2. A reading yields every record once, in the order of path, then row. Its batches may differ in
   their fields (a missing field is null) but hold plain types only: no dictionaries, run-end
   encodings, views or unions; extension types only `arrow.uuid`, `arrow.json` and `rundiff.cbor`.
3. A record that can't be read, or does not fit a pinned type, is reported in `ReadBatch.unreadable`,
   is not among the batch's records, and does not stop the reading.
4. A failure after which nothing can be trusted (a truncated archive, a lost connection) raises
   `SourceError`.
5. `pins` and `end` are asked for after the last batch only.
6. A source that can be read once only (standard input, a generator) says so by itself needing no
   second pass: what it must know beforehand (types), it learns by spooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from rundiff.model import Scope
from rundiff.settings import SourceOptions

__all__ = ["ReadBatch", "ReadEnd", "ReadRequest", "Reading", "Source", "Unreadable"]


class Unreadable(msgspec.Struct, frozen=True):
    """A record that could not be read: where it stands, and why."""

    location: str
    """For people: `people.csv, line 7` or `row 12`."""
    reason: str
    field: str | None = None


class ReadBatch(msgspec.Struct, frozen=True):
    """Some records, and what could not be read between them."""

    records: pa.RecordBatch
    unreadable: Sequence[Unreadable] = ()


class ReadEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What a source knows once it was read to its end."""

    incomplete: Sequence[str] = ()
    """Reasons why the reading is no proof that a record is gone; empty when it was complete.
    Unreadable records need not be repeated here: the engine counts them."""
    ends_with_newline: bool | None = None
    """For text sources; None where it means nothing. Of several files: whether all do."""
    newlines: Mapping[str, bool] = msgspec.field(default_factory=dict)
    """The same for each file, by its name in messages."""


class ReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine knows from earlier runs."""

    options: SourceOptions = SourceOptions()
    primary_key: tuple[str, ...] = ()
    pins: Mapping[str, str] | None = None
    """Pinned types by field, as `Reading.pins` gave them; None at the first run."""
    ended_with_newline: bool | None = None
    """`ReadEnd.ends_with_newline` of the last complete run."""
    newlines: Mapping[str, bool] = msgspec.field(default_factory=dict)
    """`ReadEnd.newlines` of the last complete run."""
    scope: Scope = Scope.FULL
    """Which part the run asks for; a source that can't tell parts apart gives what it has."""
    partitions: Sequence[Mapping[str, Any]] = ()
    """In partition scope: the partitions asked for, by the values of their fields."""
    cursor: Any = None
    """In incremental scope: the highest value of the cursor field so far; None: there is none yet.
    Records that have this very value may be new: ask for those from it on, not beyond it."""
    cursor_field: str | None = None
    """The field whose values `cursor` is one of."""
    whole: bool = False
    """All records are wanted, whatever the scope: to be sent again, or since nothing else tells of them."""


class Reading(Protocol):
    """One pass over a source."""

    def __iter__(self) -> Iterator[ReadBatch]: ...

    @property
    def pins(self) -> Mapping[str, str]:
        """The pinned types of all fields ever seen, those of this reading included."""

    @property
    def end(self) -> ReadEnd:
        """What is known at the end."""

    @property
    def total_bytes(self) -> int | None:
        """The size to be read, where known, for a progress bar."""

    @property
    def bytes_read(self) -> int | None:
        """How much of `total_bytes` was read so far."""


class Source(Protocol):
    """A place that can hand over its records whole."""

    @property
    def location(self) -> str:
        """For people and for the sync's identity, without secrets: an absolute path, `-`, `rows`."""

    @property
    def may_delete_without_count(self) -> bool:
        """False for standard input, which can't tell its end from a writer that died."""

    def open(self, request: ReadRequest) -> AbstractContextManager[Reading]:
        """Begin one reading."""
