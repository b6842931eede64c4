"""Rows of the PostgreSQL database, and the values that the contract makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from rundiff.database.contract import Acknowledged, Failure, Held, Sealed, StoredRun, StoredSync
from rundiff.model import RunKind, RunStatus

__all__ = ["as_json", "failure_of", "holder_of", "plain_row", "run_of", "sync_of", "utc"]


def as_json(value: msgspec.Struct | None) -> str | None:
    """Give a structure as JSON, or null."""
    return None if value is None else msgspec.json.encode(value).decode()


def utc(value: datetime) -> datetime:
    """Bring a time to UTC: the session's time zone may be any."""
    return value.astimezone(UTC)


def holder_of(row: Mapping[str, Any]) -> str:
    """Say who holds a lease."""
    since, until = (f"{utc(row[name]):%Y-%m-%dT%H:%M:%SZ}" for name in ("acquired_at", "expires_at"))
    return f"{row['holder']} since {since}; its lease ends at {until} unless it is renewed"


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row of texts and numbers, as the SQL views take it."""
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            plain[name] = utc(value).isoformat()
        elif isinstance(value, list | dict):
            plain[name] = json.dumps(value)
        else:
            plain[name] = str(value) if name == "sync_id" else value
    return plain


def sync_of(row: Mapping[str, Any]) -> StoredSync:
    """Read a sync."""
    run, sequence = row["acknowledged_run"], row["acknowledged_sequence"]
    return StoredSync(
        sync_id=str(row["sync_id"]),
        name=row["name"],
        source=row["source"],
        primary_key=tuple(row["primary_key"]),
        destination=row["destination"],
        shared_table=row["shared_table"],
        established=row["established"],
        created_at=utc(row["created_at"]),
        token=row["token"],
        manifest=row["manifest"],
        generation=row["generation"],
        acknowledged=None if run is None else Acknowledged(run, sequence, row["acknowledged_marker"]),
        held=None if row["held"] is None else msgspec.convert(row["held"], Held),
    )


def run_of(row: Mapping[str, Any]) -> StoredRun:
    """Read a run."""
    return StoredRun(
        sync_id=str(row["sync_id"]),
        run=row["run"],
        kind=RunKind(row["kind"]),
        status=RunStatus(row["status"]),
        token=row["token"],
        started_at=utc(row["started_at"]),
        finished_at=row["finished_at"] and utc(row["finished_at"]),
        result=row["result"],
        details=row["details"],
        sealed=None if row["sealed"] is None else msgspec.convert(row["sealed"], Sealed),
        manifest=row["manifest"],
    )


def failure_of(row: Mapping[str, Any]) -> Failure:
    """Read a record that was set aside."""
    values = {name: value for name, value in row.items() if name != "sync_id"}
    for name in ("created_at", "updated_at"):
        values[name] = utc(values[name])
    return Failure(**values)
