"""Rows of the embedded database, and the values that the contract makes of them."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

import msgspec

from rundiff.database.contract import Acknowledged, Failure, Held, Sealed, StoredRun, StoredSync
from rundiff.model import RunKind, RunStatus

__all__ = ["as_json", "failure_of", "run_of", "sync_of"]


def as_json(value: msgspec.Struct | None) -> str | None:
    """Give a structure as JSON, or null."""
    return None if value is None else msgspec.json.encode(value).decode()


def sync_of(row: sqlite3.Row) -> StoredSync:
    """Read a sync."""
    return StoredSync(
        sync_id=row["sync_id"],
        name=row["name"],
        source=row["source"],
        primary_key=tuple(json.loads(row["primary_key"])),
        destination=row["destination"],
        shared_table=bool(row["shared_table"]),
        established=bool(row["established"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        token=row["token"],
        manifest=row["manifest"],
        generation=row["generation"],
        acknowledged=None
        if row["acknowledged_run"] is None
        else Acknowledged(row["acknowledged_run"], row["acknowledged_sequence"], row["acknowledged_marker"]),
        held=None if row["held"] is None else msgspec.json.decode(row["held"], type=Held),
    )


def run_of(row: sqlite3.Row) -> StoredRun:
    """Read a run."""
    return StoredRun(
        sync_id=row["sync_id"],
        run=row["run"],
        kind=RunKind(row["kind"]),
        status=RunStatus(row["status"]),
        token=row["token"],
        started_at=datetime.fromisoformat(row["started_at"]),
        finished_at=row["finished_at"] and datetime.fromisoformat(row["finished_at"]),
        result=json.loads(row["result"]),
        details=json.loads(row["details"]),
        sealed=None if row["sealed"] is None else msgspec.json.decode(row["sealed"], type=Sealed),
        manifest=row["manifest"],
    )


def failure_of(row: sqlite3.Row) -> Failure:
    """Read a record that was set aside."""
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 -- a Row iterates over its values
    return msgspec.convert(values, Failure, strict=False)
