"""Views made by hand: plain values, as the engine gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rundiff.engine.views import Change, HeldSet, HistoryEntry, Plan, RunView, SyncView
from rundiff.model import Action, BaselineState, Counts, RunResult, RunStatus

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
DIGEST = "ab" * 32


def result(sync: str = "people", **given: Any) -> RunResult:
    values: dict[str, Any] = {
        "sync": sync,
        "run": 3,
        "status": RunStatus.COMMITTED,
        "baseline": BaselineState.FOUND,
        "complete": True,
        "counts": Counts(records_read=1000, unchanged=997, created=2, updated=1, deleted=1, written=4),
        "seconds": 0.41,
    }
    return RunResult(**{**values, **given})


def held(count: int = 120, what: str = "deletions") -> HeldSet:
    return HeldSet(
        run=3,
        what=what,
        count=count,
        reason="120 of 1,000 records are gone, 12.0 %; the limit is 10 %",
        digest=DIGEST,
        sample=[{"id": 1, "region": "EU"}, {"id": 2, "region": "EU"}],
    )


def sync_view(name: str = "people", **given: Any) -> SyncView:
    values: dict[str, Any] = {
        "name": name,
        "sync_id": "6f1f2b1e-0000-4000-8000-000000000001",
        "primary_key": ("id", "region"),
        "source": "/data/people.csv",
        "destination": "sqlite:////data/crm.db#people",
        "records": 1000,
        "last_run": 3,
        "last_status": "committed",
        "last_finished": NOON,
        "last_counts": result().counts,
        "held": None,
        "quarantined": 0,
        "signing_key_id": None,
        "running": None,
    }
    return SyncView(**{**values, **given})


def run_view(run: RunResult | None = None, **given: Any) -> RunView:
    values: dict[str, Any] = {
        "result": run or result(),
        "started_at": NOON,
        "finished_at": NOON,
        "complete_reasons": (),
        "samples": {},
        "signer": "native",
    }
    return RunView(**{**values, **given})


INSERT = Change(
    action=Action.INSERT,
    primary_key={"id": 4},
    before=None,
    after={"id": 4, "name": "Ada", "city": None},
    changed_fields=None,
)
UPDATE = Change(
    action=Action.UPDATE,
    primary_key={"id": 2},
    before={"id": 2, "name": "Grace", "city": "NY"},
    after={"id": 2, "name": "Grace Hopper", "city": "NY"},
    changed_fields=("name",),
)
DELETE = Change(
    action=Action.DELETE,
    primary_key={"id": 3},
    before={"id": 3, "name": "Edsger", "city": "Rotterdam"},
    after=None,
    changed_fields=None,
)


def plan(**given: Any) -> Plan:
    values: dict[str, Any] = {
        "result": result(run=None, status=RunStatus.PLANNED),
        "sample": (INSERT, UPDATE, DELETE),
        "path": None,
        "holds": (),
    }
    return Plan(**{**values, **given})


def entry(change: Change, run: int, status: str = "written") -> HistoryEntry:
    return HistoryEntry(run=run, sequence=1, at=NOON, change=change, status=status)
