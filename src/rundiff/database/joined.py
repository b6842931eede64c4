"""Runs that several workers make together: who is at it, and which batches are in.

A joined run has a name that its workers agree on. It holds its sync from its beginning until it is sealed,
given up, or silent for longer than its `idle_seconds`, whichever processes live meanwhile. What a batch
left is an object of the signature store, a share; here stands which share counts for which batch.

Duties of `JoinedRuns`, beside those of the database (see `contract`):

1. `Database.acquire` refuses (`SyncBusy`) while a joined run holds the sync, but for `joined`, the one that
   is to be sealed: that one takes the new token over and is being sealed from then on. If another run had
   the sync in between, `acquire` raises `Fenced`. A joined run whose delivery has begun excludes nobody:
   whoever comes next finishes it.
2. `Database.commit` closes the joined run that the committed run seals, in the same transaction.
3. `add` counts a batch once: whichever share came first is the one, and nothing replaces it.
4. `objects` names the shares that must not be swept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec

from rundiff.errors import ConfigurationError, Fenced, SyncBusy
from rundiff.model import RunStatus

__all__ = [
    "CLOSED",
    "OPEN",
    "SEALING",
    "JoinedRun",
    "JoinedRuns",
    "JoinedTables",
    "Roster",
    "Share",
    "Statements",
    "Terms",
    "refuse_batch",
]

OPEN, SEALING, CLOSED = "open", "sealing", "closed"
"""Takes batches; has all it will get; was committed or held."""
_KEPT_SECONDS = 90 * 24 * 3600
"""How long a closed one is remembered, so that a batch that comes late is still known."""

T = TypeVar("T")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers of a run start from: fixed by the first."""

    manifest: str | None
    """The baseline that records are looked up in."""
    baseline: str
    """`first`, `found` or `lost`."""
    options: dict[str, str]
    """What all workers must agree on: options by name, as JSON."""
    idle_seconds: float
    """After so many seconds without a sign of life another run may take the sync."""
    started_at: datetime


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """What workers say of the run."""

    batches: tuple[str, ...] | None = None
    """The batches that were announced, in order; None if none were."""
    expected: int | None = None
    """How many batches were announced."""
    workers: dict[str, bool] = {}
    """Who joined, and whether it has reported done."""


class JoinedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A joined run as stored."""

    sync_id: str
    name: str
    token: int
    """The fencing token under which batches are taken. It is the sync's own, unless another run took over."""
    state: str = OPEN
    run: int | None = None
    """The number of the run that seals it."""
    expires_at: datetime
    terms: Terms
    roster: Roster = Roster()


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch left."""

    batch: str
    object: str
    """Its name in the signature store."""
    digest: str
    """XXH3 (128 bits, hex) of the object."""
    records: int
    worker: str
    added_at: datetime


class _Content(msgspec.Struct, frozen=True):
    """The columns of a joined run that no statement looks into."""

    terms: Terms
    roster: Roster


class JoinedRuns(Protocol):
    """The joined runs of a database."""

    def find(self, sync_id: str, name: str) -> JoinedRun | None:
        """Find a joined run, closed ones included."""

    def begin(self, joined: JoinedRun) -> None:
        """Store a new one under `joined.token`; whatever had its name before is forgotten."""

    def change(self, joined: JoinedRun, change: Callable[[Roster], Roster]) -> JoinedRun:
        """Change the roster of an open one in one transaction, which counts as a sign of life."""

    def add(self, joined: JoinedRun, share: Share) -> bool:
        """Count a batch; False if it was in already. Raises `Fenced` once the run is being sealed."""

    def withdraw(self, joined: JoinedRun, batches: Sequence[str]) -> None:
        """Count batches no more, because their shares are lost."""

    def number(self, joined: JoinedRun, run: int) -> None:
        """Note the number of the run that seals it."""

    def remove(self, joined: JoinedRun) -> None:
        """Forget it, with its batches."""

    def shares(self, sync_id: str, name: str) -> Sequence[Share]:
        """List what is in, in the order of batch ids (by code points)."""

    def objects(self, sync_id: str) -> Set[str]:
        """Name the shares of all runs that are not closed and were not taken over."""

    def holder(self, sync_id: str) -> str | None:
        """Say which joined run holds the sync; None if none does."""


class Statements(Protocol):
    """Executes a statement whose values are marked by `?`, inside of a transaction; gives its rows."""

    def __call__(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        """Execute it."""


class Transact(Protocol):
    """Does one transaction for a sync."""

    def __call__(self, sync_id: str, token: int | None, work: Callable[[Statements], T]) -> T:
        """Raise `Fenced` if the sync has another token; None looks only."""


class JoinedTables(msgspec.Struct, frozen=True, kw_only=True):
    """`JoinedRuns` over two tables of any SQL database; the names of tables are quoted."""

    joined: str
    shares_of: str
    syncs: str
    runs: str
    transact: Transact
    now: Callable[[], datetime]

    # In transactions of the database

    def admit(self, do: Statements, sync_id: str, token: int, joined: str | None, now: datetime) -> None:
        """Judge a lease that was just taken under a new token; raises `SyncBusy` or `Fenced`."""
        rows = do(
            f"SELECT name, token, expires_at, content FROM {self.joined} AS j"
            " WHERE sync_id = ? AND state <> ? AND NOT EXISTS (SELECT 1 FROM "
            f"{self.runs} AS r WHERE r.sync_id = j.sync_id AND r.run = j.run AND r.status = ?)",
            [sync_id, CLOSED, str(RunStatus.DELIVERING)],
        )
        for row in rows:
            alive = row["token"] == token - 1
            if row["name"] == joined and not alive:
                raise _taken_over(row["name"])
            if row["name"] == joined:
                do(
                    f"UPDATE {self.joined} SET token = ?, state = ? WHERE sync_id = ? AND name = ?",
                    [token, SEALING, sync_id, joined],
                )
            elif alive and row["expires_at"] > now.timestamp():
                raise SyncBusy(_held_by(row))

    def close(self, do: Statements, sync_id: str, run: int) -> None:
        """Close what a run seals."""
        do(f"UPDATE {self.joined} SET state = ? WHERE sync_id = ? AND run = ?", [CLOSED, sync_id, run])

    # JoinedRuns

    def find(self, sync_id: str, name: str) -> JoinedRun | None:
        """Find a joined run."""
        return self.transact(sync_id, None, lambda do: self._find(do, sync_id, name))

    def _find(self, do: Statements, sync_id: str, name: str) -> JoinedRun | None:
        rows = do(f"SELECT * FROM {self.joined} WHERE sync_id = ? AND name = ?", [sync_id, name])
        return _joined(sync_id, rows[0]) if rows else None

    def begin(self, joined: JoinedRun) -> None:
        """Store a new one."""
        old = self.now().timestamp() - _KEPT_SECONDS

        def store(do: Statements) -> None:
            for table in (self.shares_of, self.joined):
                do(
                    f"DELETE FROM {table} WHERE sync_id = ? AND (name = ? OR name IN (SELECT name FROM {self.joined}"
                    " WHERE sync_id = ? AND expires_at < ?))",
                    [joined.sync_id, joined.name, joined.sync_id, old],
                )
            do(
                f"INSERT INTO {self.joined} (sync_id, name, token, state, run, expires_at, content)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    joined.sync_id,
                    joined.name,
                    joined.token,
                    joined.state,
                    joined.run,
                    joined.expires_at.timestamp(),
                    _content(joined.terms, joined.roster),
                ],
            )

        self.transact(joined.sync_id, joined.token, store)

    def change(self, joined: JoinedRun, change: Callable[[Roster], Roster]) -> JoinedRun:
        """Change the roster of an open one."""
        now = self.now().timestamp()

        def write(do: Statements) -> JoinedRun:
            found = self._open(do, joined)
            do(
                f"UPDATE {self.joined} SET expires_at = ?, content = ? WHERE sync_id = ? AND name = ?",
                [
                    now + found.terms.idle_seconds,
                    _content(found.terms, change(found.roster)),
                    joined.sync_id,
                    joined.name,
                ],
            )
            stored = self._find(do, joined.sync_id, joined.name)
            assert stored is not None  # noqa: S101 -- it was just written
            return stored

        return self.transact(joined.sync_id, joined.token, write)

    def _open(self, do: Statements, joined: JoinedRun) -> JoinedRun:
        found = self._find(do, joined.sync_id, joined.name)
        if found is None or found.token != joined.token or found.state != OPEN:
            raise Fenced(f"run {joined.name} takes no more batches: it was sealed or given up")
        return found

    def add(self, joined: JoinedRun, share: Share) -> bool:
        """Count a batch."""
        now = self.now().timestamp()
        where = [joined.sync_id, joined.name]

        def write(do: Statements) -> bool:
            found = self._open(do, joined)
            there = do(f"SELECT batch FROM {self.shares_of} WHERE sync_id = ? AND name = ?", where)
            have = {row["batch"] for row in there}
            if share.batch in have:
                return False
            refuse_batch(found, have, share.batch)
            do(
                f"INSERT INTO {self.shares_of} (sync_id, name, batch, content) VALUES (?, ?, ?, ?)",
                [*where, share.batch, msgspec.json.encode(share).decode()],
            )
            do(
                f"UPDATE {self.joined} SET expires_at = ? WHERE sync_id = ? AND name = ?",
                [now + found.terms.idle_seconds, *where],
            )
            return True

        return self.transact(joined.sync_id, joined.token, write)

    def withdraw(self, joined: JoinedRun, batches: Sequence[str]) -> None:
        """Count batches no more."""

        def write(do: Statements) -> None:
            self._open(do, joined)
            for batch in batches:
                do(
                    f"DELETE FROM {self.shares_of} WHERE sync_id = ? AND name = ? AND batch = ?",
                    [joined.sync_id, joined.name, batch],
                )

        self.transact(joined.sync_id, joined.token, write)

    def number(self, joined: JoinedRun, run: int) -> None:
        """Note the number of the run that seals it."""
        self.transact(
            joined.sync_id,
            joined.token,
            lambda do: do(
                f"UPDATE {self.joined} SET run = ? WHERE sync_id = ? AND name = ?",
                [run, joined.sync_id, joined.name],
            ),
        )

    def remove(self, joined: JoinedRun) -> None:
        """Forget it."""

        def write(do: Statements) -> None:
            for table in (self.shares_of, self.joined):
                do(f"DELETE FROM {table} WHERE sync_id = ? AND name = ?", [joined.sync_id, joined.name])

        self.transact(joined.sync_id, joined.token, write)

    def shares(self, sync_id: str, name: str) -> Sequence[Share]:
        """List what is in."""
        rows = self.transact(
            sync_id,
            None,
            lambda do: do(
                f"SELECT content FROM {self.shares_of} WHERE sync_id = ? AND name = ?", [sync_id, name]
            ),
        )
        found = [msgspec.json.decode(row["content"], type=Share) for row in rows]
        # Not by the database: its collation may be of any language.
        return sorted(found, key=lambda share: share.batch)

    def objects(self, sync_id: str) -> Set[str]:
        """Name the shares that must stay."""
        rows = self.transact(
            sync_id,
            None,
            lambda do: do(
                f"SELECT s.content FROM {self.shares_of} AS s JOIN {self.joined} AS j"
                f" ON j.sync_id = s.sync_id AND j.name = s.name JOIN {self.syncs} AS y"
                " ON y.sync_id = j.sync_id AND y.token = j.token WHERE s.sync_id = ? AND j.state <> ?",
                [sync_id, CLOSED],
            ),
        )
        return {msgspec.json.decode(row["content"], type=Share).object for row in rows}

    def holder(self, sync_id: str) -> str | None:
        """Say which joined run holds the sync."""
        now = self.now().timestamp()
        rows = self.transact(
            sync_id,
            None,
            lambda do: do(
                f"SELECT j.name, j.expires_at, j.content FROM {self.joined} AS j JOIN {self.syncs} AS y"
                " ON y.sync_id = j.sync_id AND y.token = j.token"
                " WHERE j.sync_id = ? AND j.state <> ? AND j.expires_at > ?",
                [sync_id, CLOSED, now],
            ),
        )
        return _held_by(rows[0]) if rows else None


def refuse_batch(joined: JoinedRun, have: Set[str], batch: str) -> None:
    """Refuse a batch beyond those that were announced."""
    roster = joined.roster
    if roster.batches is not None and batch not in roster.batches:
        raise ConfigurationError(
            f"run {joined.name} has no batch {batch!r}: {len(roster.batches)} others were announced. Hand in one of "
            "those, or give the run up and begin it anew"
        )
    if roster.expected is not None and len(have) >= roster.expected:
        raise ConfigurationError(
            f"run {joined.name} has its {roster.expected} expected batches already; {batch!r} would be one more. "
            "Give the run up and begin it anew, with the right number"
        )


def _taken_over(name: str) -> Fenced:
    return Fenced(
        f"another run has taken the sync over since run {name} began; its batches are not used. Begin it anew"
    )


def _held_by(row: Mapping[str, Any]) -> str:
    started = msgspec.json.decode(row["content"], type=_Content).terms.started_at
    until = datetime.fromtimestamp(row["expires_at"], UTC)
    return (
        f"run {row['name']} of several workers since {started:%Y-%m-%dT%H:%M:%S}Z, until {until:%Y-%m-%dT%H:%M:%S}Z "
        "unless one of them gives a sign of life"
    )


def _content(terms: Terms, roster: Roster) -> str:
    return msgspec.json.encode(_Content(terms, roster)).decode()


def _joined(sync_id: str, row: Mapping[str, Any]) -> JoinedRun:
    content = msgspec.json.decode(row["content"], type=_Content)
    return JoinedRun(
        sync_id=sync_id,
        name=row["name"],
        token=row["token"],
        state=row["state"],
        run=row["run"],
        expires_at=datetime.fromtimestamp(row["expires_at"], UTC),
        terms=content.terms,
        roster=content.roster,
    )
