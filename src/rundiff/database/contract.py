"""What a database owes a run: syncs, runs, leases, acknowledgements, failures and the write log.

Duties:

1. Every method is one transaction, durable when it returns. One that fails has changed nothing; where
   a connection broke, the database finds out whether it was committed before it is tried again.
2. Fencing: `acquire` gives a token higher than any before; every method that takes a token raises
   `Fenced` if a higher one was given out since, and then changes nothing.
3. `begin_run` numbers runs 1, 2, 3 … per sync; a number is never given twice, not even after a reset.
4. `commit` is the only commit point: the run's state, the current manifest, the held set and the
   state of failures change together.
5. Times are aware datetimes in UTC. `now` is the database's own clock, and all times that decisions
   rest on come from it; whether a lease has ended is never judged by another clock.
6. Whatever can't be read or written ends as `StorageError`, without passwords in its sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from rundiff.database.joined import JoinedRuns
from rundiff.database.logs import LogFolders, LogFormat, WriteLog
from rundiff.model import RunKind, RunStatus

__all__ = ["Acknowledged", "Database", "Failure", "Held", "Sealed", "StoredRun", "StoredSync"]


class Acknowledged(msgspec.Struct, frozen=True):
    """How far a destination's delivery is known to have come."""

    run: int
    sequence: int
    marker: str | None = None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for an approval."""

    run: int
    what: str
    """`deletions` or `run`."""
    count: int
    reason: str
    digest: str
    manifest: str | None
    """The manifest that the set was judged against."""
    expires_at: datetime | None = None
    """Until when it can be approved; None: for ever, as in sets of versions that did not limit it."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The write log of a sealed run, and what its commit will bring."""

    deletes: int
    updates: int
    creates: int
    new_action: str
    manifest: str
    generation: int
    start_run: int
    start_sequence: int
    start_marker: str | None = None
    held: Held | None = None
    complete: bool = False
    forget: tuple[str, ...] = ()
    """The syncs whose marks on the destination this run takes away before it delivers."""
    at: datetime | None = None
    """When; None in runs of versions that did not note it."""

    @property
    def total(self) -> int:
        """How many write records the run has."""
        return self.deletes + self.updates + self.creates


class StoredSync(msgspec.Struct, frozen=True, kw_only=True):
    """A sync as stored."""

    sync_id: str
    name: str
    source: str
    primary_key: tuple[str, ...]
    destination: str
    shared_table: bool
    established: bool
    """Whether a run was ever sealed: from then on key and destination are fixed."""
    created_at: datetime
    token: int
    manifest: str | None
    generation: int
    acknowledged: Acknowledged | None
    held: Held | None


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as stored; `result` has the keys of `--json`."""

    sync_id: str
    run: int
    kind: RunKind
    status: RunStatus
    token: int
    started_at: datetime
    finished_at: datetime | None
    result: dict[str, Any]
    details: dict[str, Any]
    sealed: Sealed | None
    manifest: str | None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was set aside. `sequence` is negative for those that never became write records."""

    run: int
    sequence: int
    primary_key_signature: bytes | None
    destination_action: str | None
    primary_key: str | None
    """JSON."""
    error: str
    outcome: str = "refused"
    """`refused` or `unknown`."""
    state: str = "open"
    """`open`, `superseded` or `discarded`."""
    attempts: int = 1
    created_at: datetime
    updated_at: datetime


class Database(Protocol):
    """A place for syncs and runs."""

    @property
    def lease_seconds(self) -> float | None:
        """How long a lease lasts after `acquire` or `heartbeat`, by the database's clock.

        None: until it is released or taken over; the engine holds a lock on a file beside it.
        """

    @property
    def place(self) -> str:
        """Where the database is, without secrets."""

    @property
    def version(self) -> str:
        """What it runs on, for people: `PostgreSQL 18.6`."""

    def close(self) -> None:
        """Let go of all resources."""

    def now(self) -> datetime:
        """Read the database's clock."""

    def write_log(self, folders: LogFolders, form: LogFormat) -> WriteLog:
        """Give the place of write logs and held sets."""

    def find(self, name: str) -> StoredSync | None:
        """Find a sync by its name."""

    def get(self, sync_id: str) -> StoredSync:
        """Give a sync that exists."""

    def syncs(self) -> Sequence[StoredSync]:
        """List all syncs by name."""

    def create(self, sync: StoredSync) -> StoredSync:
        """Store a new sync; if one of that name exists already, give that one."""

    def describe(self, sync: StoredSync, token: int) -> None:
        """Store a sync's source, primary key, destination and shared_table anew."""

    @property
    def joined(self) -> JoinedRuns:
        """The runs that several workers make together; see `rundiff.database.joined`."""

    def acquire(
        self, sync_id: str, holder: str, now: datetime, *, over: bool = False, joined: str | None = None
    ) -> int:
        """Take the lease and give its token.

        Raises `SyncBusy`, which says who holds it, while it is held and has not ended. With `over` it is
        taken over from whoever holds it, but not from a joined run; `joined` names the one to be sealed.
        """

    def heartbeat(self, sync_id: str, token: int, now: datetime) -> None:
        """Keep the lease; may be called from another thread at any time."""

    def release(self, sync_id: str, token: int) -> None:
        """Give the lease back; nothing happens if it was lost."""

    def holder(self, sync_id: str) -> str | None:
        """Say who holds the lease, since when and until when; None if nobody does, or it has ended."""

    def begin_run(self, sync_id: str, token: int, kind: RunKind, now: datetime) -> int:
        """Number a new run."""

    def update_run(self, run: StoredRun) -> None:
        """Store a run's state; `run.token` is the fencing token."""

    def acknowledge(self, sync_id: str, token: int, position: Acknowledged) -> None:
        """Note how far delivery came."""

    def add_failures(self, sync_id: str, token: int, failures: Sequence[Failure]) -> None:
        """Set records aside; the same (run, sequence) again replaces the entry."""

    def drop_failures(self, sync_id: str, token: int, run: int, sequences: Sequence[int]) -> None:
        """Forget entries whose records were written after all."""

    def settle_failures(
        self, sync_id: str, token: int, entries: Sequence[tuple[int, int]], state: str
    ) -> None:
        """Put entries, named by (run, sequence), into another state; the write records stay as they are."""

    def failures(self, sync_id: str, run: int | None = None) -> Sequence[Failure]:
        """List failures: the open ones, or all those of one run."""

    def commit(self, run: StoredRun, sync: StoredSync, superseded: Sequence[tuple[int, int]]) -> None:
        """Commit a run: its state, `sync`'s manifest, generation, acknowledgement and held set."""

    def run(self, sync_id: str, run: int) -> StoredRun | None:
        """Find a run."""

    def runs(self, sync_id: str | None = None, limit: int | None = None) -> Sequence[StoredRun]:
        """List runs, newest first."""

    def unfinished(self, sync_id: str) -> Sequence[StoredRun]:
        """List runs that are reading, sealed or delivering, oldest first."""

    def set_sync(self, sync: StoredSync, token: int, void: tuple[int, str] | None = None) -> None:
        """Store all of a sync's changeable state (reset, rollback, discard, compaction).

        With `void` (a run and a reason), note at once of all runs after it that they no longer count.
        """

    def tables(self) -> Mapping[str, list[dict[str, Any]]]:
        """Give syncs, runs and failures as rows, for the SQL views: times in ISO 8601, structures as JSON."""
