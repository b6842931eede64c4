"""What the engine tells the command, the page and Python about syncs, runs and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from rundiff.database.flaps import FlappingRecord
from rundiff.model import Action, Counts, RunResult

__all__ = [
    "Change",
    "Difference",
    "FieldSchema",
    "Flapping",
    "FlappingRecord",
    "HeldSet",
    "HistoryEntry",
    "JoinedView",
    "Plan",
    "Progress",
    "RunView",
    "SyncView",
    "Verification",
]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands, told a few times a second at most."""

    phase: str
    """`reading`, `sealing`, `delivering`, `committing`."""
    done: int
    """Records read, or write records delivered."""
    total: int | None = None
    """In records, where known."""
    bytes_done: int | None = None
    bytes_total: int | None = None


class SyncView(msgspec.Struct, frozen=True, kw_only=True):
    """One sync, as `rundiff status` shows it."""

    name: str
    sync_id: str
    primary_key: tuple[str, ...]
    source: str
    destination: str
    """Without secrets."""
    records: int
    """Live keys of the baseline."""
    last_run: int | None
    last_status: str | None
    last_finished: datetime | None
    last_counts: Counts | None
    held: HeldSet | None
    quarantined: int
    signing_key_id: str | None
    running: str | None
    """Who holds the sync right now, or None."""


class HeldSet(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a person."""

    run: int
    what: str
    """`deletions` or `run`."""
    count: int
    reason: str
    """Which guard, with its figures."""
    digest: str
    """SHA-256 over the set, in hex; an approval binds to it."""
    sample: Sequence[Mapping[str, Any]] = ()
    """Primary keys of the first few."""
    expires_at: datetime | None = None
    """Until when it can be approved."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as `rundiff runs` and `rundiff show` show it."""

    result: RunResult
    started_at: datetime
    finished_at: datetime | None
    complete_reasons: Sequence[str]
    """Why the reading was incomplete; empty when it was complete."""
    samples: Mapping[str, Sequence[str]]
    """Sentences on odd records by kind: `invalid_keys`, `unreadable`, `duplicates`, `conflicts`,
    `pending`, `failed`."""
    signer: str
    """`native` or `python`."""
    pending: int = 0
    """Keys that were missed, but not often enough to be deleted (`delete_after_misses`)."""
    known: bool = True
    """Whether it was noted what the run came to; else the result says its number, kind and status only."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a plan or run, with what was there before."""

    action: Action
    primary_key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    changed_fields: tuple[str, ...] | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A preview: what a run would do now. `result.status` is `planned`, `result.run` is None."""

    result: RunResult
    sample: Sequence[Change]
    """The first few changes of each action."""
    path: str | None
    """Where the plan was written, for `rundiff apply`."""
    holds: Sequence[str]
    """Sentences on what guards would hold."""

    @property
    def changes(self) -> int:
        """How many write records it would deliver."""
        counts = self.result.counts
        return counts.created + counts.updated + counts.deleted


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one record, as `rundiff history` shows it."""

    run: int
    sequence: int
    at: datetime
    change: Change
    status: str


class Flapping(msgspec.Struct, frozen=True, kw_only=True):
    """The records that a sync's last runs changed back and forth."""

    runs: int
    """How many runs were looked at."""
    from_run: int
    """The first of them."""
    to_run: int
    """The last of them."""
    count: int
    """How many records flap."""
    estimated: bool
    """Whether `count` is projected from a part of the keys, since the runs have many write records."""
    sample: Sequence[FlappingRecord]
    """Those that came back most often, first."""


class JoinedView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run of several workers has come."""

    run: str
    """Its name."""
    batches: tuple[str, ...]
    """Those that are in, in order."""
    missing: tuple[str, ...]
    """Those that were announced by name and are not in."""
    lacking: int
    """How many of the announced ones are not in."""
    working: tuple[str, ...]
    """Workers that have not reported done."""
    announced: bool
    """Whether it was said which batches there are, or how many."""
    result: RunResult | None
    """Once it was sealed."""


class FieldSchema(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a sync, as `rundiff schema` shows it."""

    name: str
    type: str
    """The pinned type."""
    role: str
    """`key`, `compared`, `excluded`, or `dropped`: the source no longer has it."""
    form: tuple[str, ...] = ()
    """How it is compared otherwise than as it is: normalisers, and what is left out or alone taken of it."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a destination that is not what the baseline says."""

    kind: str
    """`drifted`, `missing`, `repeated` (several rows of one key) or `foreign` (the baseline lacks the key)."""
    primary_key: Mapping[str, Any]
    expected: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    """Of a drifted row: what was delivered in the fields that differ, as the destination spells it; empty
    where the record is not known any more."""
    found: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    """What stands there."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `rundiff verify` found. Rows of other writers count as `foreign`, and are no difference."""

    sync: str
    records: int
    """Live keys of the baseline: `agreed` + `drifted` + `missing` + `repeated` + `unverified`."""
    rows: int
    """Rows of the destination that stand for records."""
    agreed: int
    drifted: int
    missing: int
    repeated: int
    foreign: int
    unverified: int
    """Rows that can't be compared: what was delivered is not known, and a value can't be read back."""
    unread: tuple[str, ...] = ()
    """Fields with values that can't be read back as their type; they are compared by their spelling."""
    assumed: int = 0
    """Entries that are still taken for granted, after this."""
    confirmed: int = 0
    """Entries that were, and proved right."""
    unrepaired: int = 0
    """With a repair: rows whose data is not known; the next run that reads them writes them."""
    sample: Sequence[Difference] = ()
    repair: RunResult | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def differences(self) -> int:
        """How many keys are not as the baseline says."""
        return self.drifted + self.missing + self.repeated

    def as_json(self) -> dict[str, Any]:
        """Give the object that `--json` prints, without the sample."""
        names = (
            *("sync", "records", "rows", "agreed", "drifted", "missing", "repeated", "foreign", "unverified"),
            *("assumed", "confirmed", "unrepaired"),
        )
        return {
            **{name: getattr(self, name) for name in names},
            "unread": list(self.unread),
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "repair": None if self.repair is None else self.repair.as_json(),
        }
