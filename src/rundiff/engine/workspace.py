"""The composition root: the one module that joins engine and backends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from rundiff.database.registry import migrate_database, open_database
from rundiff.engine.home import Home
from rundiff.engine.sink import open_sink
from rundiff.engine.views import (
    FieldSchema,
    Flapping,
    HeldSet,
    HistoryEntry,
    Plan,
    Progress,
    RunView,
    SyncView,
    Verification,
)
from rundiff.errors import ConfigurationError
from rundiff.model import RunResult
from rundiff.settings import PARTICULAR, DestinationOptions, Storage, SyncSettings
from rundiff.stores.registry import open_store

if TYPE_CHECKING:
    import pyarrow as pa

    from rundiff.database.contract import StoredSync
    from rundiff.destinations.contract import Destination
    from rundiff.engine.session import Backends, Session

__all__ = ["Workspace"]

SAMPLES = 20
"""Keys of each kind that `verify` gives, unless another number is asked for."""

ProgressHook = Callable[[Progress], None]


class Workspace:
    """Everything one can do with the syncs of one database."""

    def __init__(self, storage: Storage) -> None:
        from rundiff.engine.log import log_format
        from rundiff.engine.session import Backends
        from rundiff.signing import SigningKey

        self.storage = storage
        home = Home(Path(storage.home))
        key = None if storage.signing_key is None else SigningKey(storage.signing_key)
        former = storage.former_signing_key
        database = open_database(storage.database, home.database)
        try:
            home.root.mkdir(parents=True, exist_ok=True)
            self._backends = Backends(
                home=home,
                database=database,
                log=database.write_log(home, log_format()),
                store=open_store(storage.signatures, home.signatures, home.cache),
                signing_key=key,
                former_keys=() if former is None else (SigningKey(former) if former else None,),
                retention_days=storage.retention_days,
            )
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and the signature store."""
        try:
            self._backends.store.close()
        finally:
            self._backends.database.close()
            if self.storage.database is not None or self.storage.signatures is not None:
                self._backends.home.trim_copies(self.storage.cache_bytes)

    def backends(self, progress: ProgressHook | None = None) -> Backends:
        """Give what runs share, with a hook for progress."""
        from msgspec.structs import replace

        return replace(self._backends, progress=progress)

    @staticmethod
    def migrate(storage: Storage) -> tuple[str, str | None, str]:
        """Bring the database's schema up to date: gives its place, the version found and the version now."""
        return migrate_database(storage.database, Home(Path(storage.home)).database)

    # Acting

    def run(self, settings: SyncSettings, progress: ProgressHook | None = None) -> RunResult:
        """Execute a sync once; raises a `RundiffError` if the run failed."""
        from rundiff.engine.flow import sync_once
        from rundiff.engine.recovery import recover
        from rundiff.engine.session import Session
        from rundiff.sources import open_source

        source = open_source(settings.source, settings.reading)
        destination = open_sink(settings.destination, refuse_caller=settings.name)
        backends = self.backends(progress)
        with Session.open(backends, settings, destination, source.location) as session:
            recover(session, settings)
            return sync_once(session, settings, source)

    def plan(
        self, settings: SyncSettings, out: Path | None = None, progress: ProgressHook | None = None
    ) -> Plan:
        """Preview a run without changing any state; keep it at `out` for `apply`."""
        from rundiff.engine.planning import preview

        return preview(self.backends(progress), settings, open_sink(settings.destination), out)

    def apply(
        self, path: Path, settings: SyncSettings | None = None, progress: ProgressHook | None = None
    ) -> RunResult:
        """Deliver exactly what a plan holds; raises `StateChanged` if the baseline moved since.

        `settings` bring the destination's secrets back, which a plan does not store.
        """
        from rundiff.engine.approval import apply_changes
        from rundiff.engine.planning import refuse_other_plan, unpack
        from rundiff.engine.recovery import recover
        from rundiff.engine.session import Session

        folder = Path(tempfile.mkdtemp(prefix="apply-", dir=self._backends.home.root))
        try:
            changes, planned = unpack(path, folder)
            chosen = settings or planned
            destination = open_sink(chosen.destination, refuse_caller=chosen.name)
            refuse_other_plan(changes.findings, chosen, destination)
            backends = self.backends(progress)
            with Session.open(backends, chosen, destination, changes.findings.source) as session:
                recover(session, chosen)
                return apply_changes(session, chosen, changes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def approve(
        self,
        name: str,
        digest: str | None = None,
        destination_url: str | None = None,
        destination: DestinationOptions | None = None,
    ) -> RunResult:
        """Deliver what is held, in a run of its own; raises `StateChanged` for another digest.

        `destination_url` or `destination` bring back what is not stored of the destination, such as secrets.
        """
        from rundiff.engine import approval
        from rundiff.engine.recovery import recover

        settings = self._stored_settings(name, destination_url, destination)
        with self._take(name, open_sink(settings.destination, refuse_caller=name)) as session:
            recover(session, settings)
            return approval.approve(session, settings, digest)

    def discard(self, name: str) -> HeldSet:
        """Drop what is held; the next complete run finds it anew."""
        from rundiff.engine import approval
        from rundiff.engine.inspect import held_view

        with self._take(name, None) as session:
            shown = held_view(self._backends, session.sync)
            held = approval.discard(session)
            return shown or HeldSet(
                run=held.run, what=held.what, count=held.count, reason=held.reason, digest=held.digest
            )

    def retry(
        self, name: str, key: Mapping[str, Any] | None = None, destination: DestinationOptions | None = None
    ) -> RunResult:
        """Send what is set aside again, in a run of its own; with `key`, only that record.

        `destination` brings back what is not stored of it, such as secrets. Raises `StateChanged` if there
        is nothing to send.
        """
        from rundiff.engine.recovery import recover
        from rundiff.engine.retrying import retry

        settings = self._stored_settings(name, None, destination)
        with self._take(name, open_sink(settings.destination, refuse_caller=name)) as session:
            recover(session, settings)
            return retry(session, settings, key)

    def adopt(
        self, settings: SyncSettings, *, dry_run: bool = False, progress: ProgressHook | None = None
    ) -> RunResult:
        """Make a first baseline of what the destination already holds, in a run of its own.

        The source is read for its fields and types. With `dry_run` no state is changed. Raises
        `StateChanged` if the sync has a baseline.
        """
        from rundiff.engine import adopting
        from rundiff.engine.recovery import recover
        from rundiff.engine.session import Session
        from rundiff.sources import open_source

        source = open_source(settings.source, settings.reading)
        destination = open_sink(settings.destination, refuse_caller=settings.name)
        backends = self.backends(progress)
        if dry_run:
            return adopting.preview_adoption(backends, settings, source, destination)
        with Session.open(backends, settings, destination, source.location) as session:
            recover(session, settings)
            return adopting.adopt(session, settings, source)

    def verify(
        self,
        name: str,
        given: SyncSettings | DestinationOptions | None = None,
        *,
        repair: bool = False,
        limit: int = SAMPLES,
        progress: ProgressHook | None = None,
    ) -> Verification:
        """Compare what the destination holds with the baseline; with `repair`, write what differs again.

        `given`, the settings or the destination alone, brings back what is not stored, such as secrets and
        guards; `limit` is how many keys of each kind are given as samples.
        """
        from rundiff.engine import repairing
        from rundiff.engine.recovery import recover
        from rundiff.engine.session import Session

        chosen = given if isinstance(given, SyncSettings) else self._stored_settings(name, None, given)
        destination = open_sink(chosen.destination, refuse_caller=name)
        backends = self.backends(progress)
        with Session.take(backends, self._find(name), destination, wait=chosen.wait) as session:
            if repair:
                recover(session, chosen)
            return repairing.verify(session, chosen, repair=repair, limit=limit)

    def discard_record(self, name: str, key: Mapping[str, Any]) -> int:
        """Drop what is set aside of one record, and give the number of entries."""
        from rundiff.engine.retrying import discard_record

        with self._take(name, None) as session:
            return discard_record(session, key)

    def reset(self, name: str) -> None:
        """Forget a sync's baseline, key and destination; runs keep their numbers and history."""
        from rundiff.engine.run import sweep

        with self._take(name, None) as session:
            for run in self._backends.database.unfinished(session.sync.sync_id):
                from rundiff.baseline.baseline import Baseline
                from rundiff.engine.run import Execution

                Execution(session, run, Baseline.empty()).discard()
            session.refresh()
            sync = msgspec.structs.replace(
                session.sync, established=False, manifest=None, acknowledged=None, held=None
            )
            self._backends.database.set_sync(sync, session.token, void=(0, "reset"))
            session.sync = sync
            self._backends.store.swap_manifest(sync.sync_id, None, session.token)
            sweep(session)

    def rollback(self, name: str, to_run: int, destination_url: str | None = None) -> None:
        """Go back to the baseline of an earlier run: the destination was restored to it."""
        from rundiff.engine.rollback import roll_back

        settings = self._stored_settings(name, destination_url)
        with self._take(name, open_sink(settings.destination)) as session:
            roll_back(session, to_run)

    def rebuild(self, name: str) -> int:
        """Make the baseline anew from the write log, without the destination; gives its live records."""
        from rundiff.engine.replay import rebuild

        with self._take(name, None) as session:
            return rebuild(session).live

    def accept_schema(
        self, name: str, fields: Sequence[str] = (), renamed: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Let the next full run take fields as they come, `renamed` ones too; see `accept_fields`."""
        from rundiff.engine.accepting import accept_fields

        with self._take(name, None) as session:
            return accept_fields(session, fields, renamed)

    def _take(self, name: str, destination: Destination | None) -> Session:
        from rundiff.engine.session import Session

        return Session.take(self._backends, self._find(name), destination)

    def _find(self, name: str) -> StoredSync:
        from rundiff.engine.inspect import find_sync

        return find_sync(self._backends, name)

    def _stored_settings(
        self, name: str, url: str | None, destination: DestinationOptions | None = None
    ) -> SyncSettings:
        """Settings of a sync as stored; `url` and `destination` bring back what is not stored."""
        from rundiff.engine.session import StoredDestination

        sync = self._find(name)
        stored = StoredDestination.decode(sync.destination)
        given = destination if destination and (destination.url or destination.function) else None
        place = url or (given and given.url) or stored.url
        kept = {**stored.options, "url": place, "shared_table": sync.shared_table}
        if given is not None:
            names = [n for n in given.__struct_fields__ if n.startswith(PARTICULAR) or n == "function"]
            kept.update({n: getattr(given, n) for n in names})
        # Checked when they were stored; the struct holds functions, which no conversion can give.
        options = DestinationOptions(**kept)
        return SyncSettings(name=name, source=None, primary_key=sync.primary_key, destination=options)

    # Looking

    def syncs(self) -> Sequence[SyncView]:
        """List the syncs by name."""
        return [self._view(sync) for sync in self._backends.database.syncs()]

    def _view(self, sync: StoredSync) -> SyncView:
        from rundiff.engine.inspect import sync_view
        from rundiff.engine.lease import holder_of

        backends = self._backends
        holder = holder_of(backends.database, backends.home.lock(sync.sync_id), sync.sync_id)
        return sync_view(backends, sync, holder)

    def runs(self, name: str | None = None, limit: int = 20) -> Sequence[RunView]:
        """List runs, newest first."""
        from rundiff.engine.inspect import run_view

        database = self._backends.database
        syncs = {s.sync_id: s for s in ([self._find(name)] if name is not None else database.syncs())}
        only = next(iter(syncs)) if name is not None else None
        return [run_view(syncs[run.sync_id], run) for run in database.runs(only, limit)]

    def show(self, name: str, run: int | None = None) -> tuple[SyncView, RunView]:
        """Tell all about one run; the last one by default."""
        from rundiff.engine.inspect import run_view

        sync = self._find(name)
        database = self._backends.database
        runs = database.runs(sync.sync_id, 1) if run is None else [database.run(sync.sync_id, run)]
        if not runs or runs[0] is None:
            what = "no run yet" if run is None else f"no run {run}"
            raise ConfigurationError(f"sync {name} has {what}; `rundiff runs {name}` lists its runs")
        return self._view(sync), run_view(sync, runs[0])

    def flapping(self, name: str, run: int | None = None) -> Flapping | None:
        """Tell which records the last runs up to `run` changed back and forth; None where there are too few."""
        from rundiff.engine.flapping import find_flapping

        return find_flapping(self._backends, self._find(name), run)

    def history(self, name: str, key: Mapping[str, Any]) -> Sequence[HistoryEntry]:
        """List every change of one record, oldest first. Text is matched to the key's pinned types."""
        from rundiff.engine.inspect import history

        return history(self._backends, self._find(name), key)

    def schema(self, name: str) -> Sequence[FieldSchema]:
        """List a sync's fields with their pinned types."""
        from rundiff.engine.inspect import schema

        return schema(self._backends, self._find(name))

    def sql(self, query: str, *, syncs: Sequence[str] = (), last: int | None = None) -> pa.Table:
        """Query the views `sync_write_records`, `runs`, `syncs` and `failures` with DuckDB's SQL.

        `syncs` and `last` limit the write records to some syncs, and to the last runs of each.
        """
        from rundiff.engine import sqlviews

        return sqlviews.query(self._backends, query, sqlviews.Window(syncs=tuple(syncs), last=last))
