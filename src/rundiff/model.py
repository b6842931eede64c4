"""The values that a run is made of: actions, states, counts, results and write records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import msgspec
from msgspec.structs import asdict

__all__ = [
    "Action",
    "BaselineState",
    "Counts",
    "Match",
    "RecordStatus",
    "RunKind",
    "RunResult",
    "RunStatus",
    "Scope",
    "SyncWriteRecord",
]


class Action(StrEnum):
    """What a write record does to its destination; equal to its name ("update")."""

    CREATE = "create"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Match(IntEnum):
    """What a lookup in the baseline says of a record: shared by the lookups and the comparison."""

    NEW = 0
    """The baseline does not have the key."""
    SAME = 1
    """The baseline has the key with the same data signature."""
    CHANGED = 2
    """The baseline has the key with another data signature, or its state is uncertain."""


class RecordStatus(StrEnum):
    """How far a write record came."""

    PENDING = "pending"
    WRITTEN = "written"
    FAILED = "failed"


class RunKind(StrEnum):
    """What started a run."""

    SYNC = "sync"
    APPROVE = "approve"
    RETRY = "retry"
    REPAIR = "repair"
    ADOPT = "adopt"


class RunStatus(StrEnum):
    """The states of a run's life (design section 6); `planned` is a preview, which is no run."""

    READING = "reading"
    SEALED = "sealed"
    DELIVERING = "delivering"
    COMMITTED = "committed"
    HELD = "held"
    FAILED = "failed"
    DISCARDED = "discarded"
    PLANNED = "planned"


class Scope(StrEnum):
    """Which part of the source a run read."""

    FULL = "full"
    PARTITION = "partition"
    INCREMENTAL = "incremental"


class BaselineState(StrEnum):
    """What a run found of the last one: nothing yet, its baseline, or a baseline that is unknown."""

    FIRST = "first"
    FOUND = "found"
    LOST = "lost"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many records a run met, by what became of them.

    `records_read` = unchanged + created + updated + duplicates + invalid_keys + unreadable
    + the records that lost a conflict or were set aside.
    """

    records_read: int = 0
    unchanged: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    deletes_held: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid_keys: int = 0
    unreadable: int = 0
    written: int = 0
    failed: int = 0


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did; `as_json` gives the object that `--json` prints (design section 7)."""

    sync: str
    run: int | None
    kind: RunKind = RunKind.SYNC
    status: RunStatus
    baseline: BaselineState = BaselineState.FIRST
    scope: Scope = Scope.FULL
    complete: bool = False
    counts: Counts = msgspec.field(default_factory=Counts)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None
    held_reason: str | None = None
    """Which guard held what, with its figures; None when nothing is held."""

    def as_json(self) -> dict[str, Any]:
        """Give the keys of the `--json` contract, in its order."""
        return {
            "sync": self.sync,
            "run": self.run,
            "kind": str(self.kind),
            "status": str(self.status),
            "baseline": str(self.baseline),
            "scope": str(self.scope),
            "complete": self.complete,
            **asdict(self.counts),
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "error": self.error,
        }


class SyncWriteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One change to write (design section 5).

    `primary_key_signature` and `data_signature` are 32 bytes (SHA-256, or HMAC-SHA-256 under a
    signing key); `sequence` counts from 1 within the run; times are UTC. A delete carries the
    record's last known data, and always its key values.
    """

    sync_id: str
    run_id: int
    sequence: int
    primary_key_signature: bytes
    data_signature: bytes
    destination_action: Action
    data: Mapping[str, Any] | None
    primary_key: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    status: RecordStatus = RecordStatus.PENDING
    changed_fields: tuple[str, ...] | None = None
    attempts: int = 0
    error: str | None = None

    @property
    def idempotency_key(self) -> str:
        """`sync_id/run/sequence`: the same on every repeat of this delivery."""
        return f"{self.sync_id}/{self.run_id}/{self.sequence}"
