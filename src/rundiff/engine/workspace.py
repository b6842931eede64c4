"""The composition root: the one module that joins engine and backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from rundiff.engine.views import FieldSchema, HeldSet, HistoryEntry, Plan, Progress, RunView, SyncView
from rundiff.model import RunResult
from rundiff.settings import Storage, SyncSettings

__all__ = ["Workspace"]

ProgressHook = Callable[[Progress], None]


class Workspace:
    """Everything one can do with the syncs of one home directory."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""

    def run(self, settings: SyncSettings, progress: ProgressHook | None = None) -> RunResult:
        """Execute a sync once; raises a `RundiffError` if the run failed."""
        raise NotImplementedError

    def plan(self, settings: SyncSettings, out: Path | None = None, progress: ProgressHook | None = None) -> Plan:
        """Preview a run without changing any state; keep it at `out` for `apply`."""
        raise NotImplementedError

    def apply(self, path: Path, settings: SyncSettings | None = None, progress: ProgressHook | None = None) -> RunResult:
        """Deliver exactly what a plan holds; raises `StateChanged` if the baseline moved since.

        `settings` bring the destination's secrets back, which a plan does not store.
        """
        raise NotImplementedError

    def approve(self, name: str, digest: str | None = None, destination_url: str | None = None) -> RunResult:
        """Deliver what is held, in a run of its own; raises `StateChanged` for another digest."""
        raise NotImplementedError

    def discard(self, name: str) -> HeldSet:
        """Drop what is held; the next complete run finds it anew."""
        raise NotImplementedError

    def reset(self, name: str) -> None:
        """Forget a sync's baseline, key and destination; runs keep their numbers and history."""
        raise NotImplementedError

    def rollback(self, name: str, to_run: int) -> None:
        """Go back to the baseline of an earlier run: the destination was restored to it."""
        raise NotImplementedError

    def syncs(self) -> Sequence[SyncView]:
        """List the syncs by name."""
        raise NotImplementedError

    def runs(self, name: str | None = None, limit: int = 20) -> Sequence[RunView]:
        """List runs, newest first."""
        raise NotImplementedError

    def show(self, name: str, run: int | None = None) -> tuple[SyncView, RunView]:
        """Tell all about one run; the last one by default."""
        raise NotImplementedError

    def history(self, name: str, key: Mapping[str, Any]) -> Sequence[HistoryEntry]:
        """List every change of one record, oldest first. Text values are matched to the key's pinned types."""
        raise NotImplementedError

    def schema(self, name: str) -> Sequence[FieldSchema]:
        """List a sync's fields with their pinned types."""
        raise NotImplementedError

    def sql(self, query: str) -> pa.Table:
        """Query the views `sync_write_records`, `runs` and `syncs` with DuckDB's SQL, read only."""
        raise NotImplementedError
