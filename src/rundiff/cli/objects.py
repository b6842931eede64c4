"""The JSON objects that commands print, one for each kind of view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import asdict

from rundiff.cli.values import jsonable
from rundiff.engine.views import (
    Change,
    FieldSchema,
    Flapping,
    HeldSet,
    HistoryEntry,
    Plan,
    RunView,
    SyncView,
    Verification,
)
from rundiff.errors import RundiffError
from rundiff.model import RunResult

__all__ = [
    "change_object",
    "failed_verification_object",
    "field_object",
    "flapping_object",
    "held_object",
    "history_object",
    "masked_messages",
    "plan_object",
    "result_object",
    "run_object",
    "sync_object",
    "verification_object",
]


MESSAGES = frozenset(
    {
        "complete_reasons",
        "destination",
        "error",
        "held",
        "held_reason",
        "holds",
        "reason",
        "samples",
        "source",
        "warnings",
    }
)
"""Keys whose values are sentences or places, not data of records."""


def masked_messages(described: Mapping[str, Any], mask: Callable[[str], str]) -> dict[str, Any]:
    """Put a mask on the sentences and places of an object, and leave the records' data alone."""
    return {key: _masked(value, mask) if key in MESSAGES else value for key, value in described.items()}


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_masked(item, mask) for item in value]
    if isinstance(value, dict):
        return {
            key: _masked(item, mask) if isinstance(item, dict | list) or key in MESSAGES else item
            for key, item in value.items()
        }
    return value


def result_object(result: RunResult) -> dict[str, Any]:
    """Describe a run by the contract of `--json` (design section 7)."""
    return result.as_json()


def change_object(change: Change) -> dict[str, Any]:
    """Describe one change with what was there before."""
    return {
        "action": str(change.action),
        "primary_key": jsonable(change.primary_key),
        "before": jsonable(change.before),
        "after": jsonable(change.after),
        "changed_fields": jsonable(change.changed_fields),
    }


def plan_object(plan: Plan) -> dict[str, Any]:
    """Describe a plan: the object of a run, and what a preview adds."""
    return {
        **plan.result.as_json(),
        "changes": plan.changes,
        "holds": list(plan.holds),
        "sample": [change_object(change) for change in plan.sample],
        "path": plan.path,
    }


def held_object(held: HeldSet) -> dict[str, Any]:
    """Describe what waits for a person."""
    return {
        "run": held.run,
        "what": held.what,
        "count": held.count,
        "reason": held.reason,
        "digest": held.digest,
        "expires_at": _time(held.expires_at),
        "sample": [jsonable(key) for key in held.sample],
    }


def sync_object(view: SyncView) -> dict[str, Any]:
    """Describe a sync."""
    return {
        "sync": view.name,
        "sync_id": view.sync_id,
        "primary_key": list(view.primary_key),
        "source": view.source,
        "destination": view.destination,
        "records": view.records,
        "last_run": view.last_run,
        "last_status": view.last_status,
        "last_finished": _time(view.last_finished),
        "last_counts": asdict(view.last_counts) if view.last_counts else None,
        "held": held_object(view.held) if view.held else None,
        "quarantined": view.quarantined,
        "signing_key_id": view.signing_key_id,
        "running": view.running,
    }


def run_object(view: RunView) -> dict[str, Any]:
    """Describe a run with its times and samples; null stands for what was not noted of a run."""
    result = view.result.as_json()
    if not view.known:
        told = ("sync", "run", "kind", "status", "warnings", "error")
        result = {name: value if name in told else None for name, value in result.items()}
    return {
        **result,
        "held_reason": view.result.held_reason,
        "started_at": _time(view.started_at),
        "finished_at": _time(view.finished_at),
        "complete_reasons": list(view.complete_reasons),
        "samples": {kind: list(sentences) for kind, sentences in view.samples.items()},
        "signer": view.signer if view.known else None,
        "pending": view.pending if view.known else None,
    }


def flapping_object(flapping: Flapping) -> dict[str, Any]:
    """Describe the records that change back and forth."""
    return {
        "runs": flapping.runs,
        "from_run": flapping.from_run,
        "to_run": flapping.to_run,
        "count": flapping.count,
        "estimated": flapping.estimated,
        "sample": [
            {
                "primary_key": jsonable(record.primary_key),
                "changes": record.changes,
                "returns": record.returns,
                "deletes": record.deletes,
                "fields": list(record.fields),
            }
            for record in flapping.sample
        ],
    }


def history_object(entry: HistoryEntry) -> dict[str, Any]:
    """Describe one change of one record."""
    return {
        "run": entry.run,
        "sequence": entry.sequence,
        "at": _time(entry.at),
        "status": entry.status,
        **change_object(entry.change),
    }


def field_object(field: FieldSchema) -> Mapping[str, Any]:
    """Describe one field."""
    described: dict[str, Any] = {"name": field.name, "type": field.type, "role": field.role}
    return {**described, "compared_as": list(field.form)} if field.form else described


def verification_object(found: Verification) -> dict[str, Any]:
    """Describe what a verification found, with its sample."""
    sample = [
        {
            "difference": one.kind,
            "primary_key": jsonable(one.primary_key),
            "expected": dict(one.expected),
            "found": dict(one.found),
        }
        for one in found.sample
    ]
    return {**found.as_json(), "sample": sample, "error": None}


def failed_verification_object(sync: str, error: RundiffError) -> dict[str, Any]:
    """Describe a verification that failed, by the keys of one that did not."""
    nothing = Verification(
        sync=sync, records=0, rows=0, agreed=0, drifted=0, missing=0, repeated=0, foreign=0, unverified=0,
        repair=error.result,
    )  # fmt: skip
    return {**verification_object(nothing), "error": str(error)}


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
