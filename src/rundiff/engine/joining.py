"""A run that several workers make together: join it, hand batches in, seal it.

Each worker reads, signs and looks its batches up by itself, and leaves a share of each in the signature store; the
database says which share counts for which batch. Who seals takes the sync's lease, and with it the fencing
token: from then on nothing more is taken. Docs: decisions/0011-workers-of-one-run.md.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
import uuid
from datetime import timedelta
from typing import Any

import msgspec

from rundiff.baseline.baseline import Baseline
from rundiff.compare.seen import open_seen
from rundiff.database.contract import StoredSync
from rundiff.database.joined import CLOSED, OPEN, JoinedRun, Terms, refuse_batch
from rundiff.database.joined import Share as Entry
from rundiff.destinations.contract import Destination
from rundiff.engine.drift import refuse_two_rules, rules_of_run
from rundiff.engine.flow import deliver_changes, failing, find_and_seal
from rundiff.engine.gathering import WORKERS, GatheringFinder
from rundiff.engine.joinable import (
    Joining,
    agreed_options,
    check_name,
    check_run,
    entered,
    refuse_one_reader,
    refuse_other_options,
)
from rundiff.engine.lost import Lost, refusal
from rundiff.engine.reading import read_all
from rundiff.engine.recovery import recover
from rundiff.engine.report import result_from_json
from rundiff.engine.rules import ReadingRules
from rundiff.engine.run import Execution
from rundiff.engine.session import Backends, Session, open_baseline, refuse_other
from rundiff.engine.shares import write_share
from rundiff.engine.spool import Spool
from rundiff.engine.starting import start
from rundiff.engine.stored_shares import drop_shares, shares_source, withdraw_lost
from rundiff.engine.views import JoinedView, Progress
from rundiff.errors import (
    BaselineLost,
    ConfigurationError,
    Fenced,
    PolicyViolation,
    RundiffError,
    StateChanged,
    SyncBusy,
)
from rundiff.model import BaselineState, RunKind, RunResult, Scope
from rundiff.settings import SyncSettings
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest, Source
from rundiff.stores.blob_plans import digest_of_file
from rundiff.stores.contract import SHARE

__all__ = ["Joined"]

log = logging.getLogger("rundiff")

_PATIENCE = 15.0
"""Seconds to wait for a run that another worker is just beginning."""
_POLL = 0.2


class Joined:
    """A worker's part in a joined run."""

    def __init__(
        self, backends: Backends, settings: SyncSettings, destination: Destination, joining: Joining
    ) -> None:
        """Join the run, or begin it.

        Raises `SyncBusy` while another run has the sync, and `ConfigurationError` if the workers disagree.
        """
        check_run(joining)
        refuse_one_reader(settings)
        self._backends = backends
        self._settings = settings
        self._destination = destination
        self._worker = joining.worker or f"process {os.getpid()} on {socket.gethostname()}"
        self._baseline: Baseline | None = None
        self._last_sign = 0.0
        self._given_up = False
        joined = self._find_or_begin(joining)
        self._joined = joined
        refuse_other_options(settings, backends.signing_key, joined)
        if joined.state == OPEN:
            self._joined = self._tables.change(
                joined, lambda roster: entered(roster, joining, settings.name, self._worker)
            )
            self._last_sign = time.monotonic()

    # Joining

    @property
    def _tables(self) -> Any:
        return self._backends.database.joined

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._joined.name

    @property
    def _sync(self) -> StoredSync:
        return self._backends.database.get(self._joined.sync_id)

    def _find_or_begin(self, joining: Joining) -> JoinedRun:
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = self._found(joining.run)
            if found is not None:
                return found
            try:
                return self._begin(joining)
            except SyncBusy:
                # Another worker may be beginning the same run; its lease ends when the run has begun. One that
                # has begun is found; any other will keep the sync for longer than anyone wants to wait unasked.
                if not self._settings.wait and (self._has_begun() or time.monotonic() > deadline):
                    found = self._found(joining.run)
                    if found is None:
                        raise
                    return found
                time.sleep(_POLL)

    def _has_begun(self) -> bool:
        """Tell whether a joined run holds the sync, whichever it is."""
        _, sync = refuse_other(self._backends, self._settings, self._destination, WORKERS)
        return sync is not None and self._tables.holder(sync.sync_id) is not None

    def _found(self, run: str) -> JoinedRun | None:
        database = self._backends.database
        _, sync = refuse_other(self._backends, self._settings, self._destination, WORKERS)
        joined: JoinedRun | None = None if sync is None else database.joined.find(sync.sync_id, run)
        if joined is None or joined.state == CLOSED:
            return joined
        # Looked at afterwards: a run of that name that another one has overtaken may be begun anew.
        return joined if joined.token == database.get(joined.sync_id).token else None

    def _begin(self, joining: Joining) -> JoinedRun:
        settings = msgspec.structs.replace(self._settings, wait=False)
        with Session.open(self._backends, settings, self._destination, WORKERS) as session:
            recover(session, settings)
            started = start(self._backends, settings, (session.destination, session.target), session.sync)
            if started.state is BaselineState.LOST and settings.policies.on_lost_baseline == "fail":
                raise refusal(settings.name, started.lost, session.destination)
            asked = ReadingRules.of(settings, self._backends.signing_key)
            manifest = started.baseline.manifest
            refuse_two_rules(settings, rules_of_run(asked, settings, manifest, self._backends, Scope.FULL))
            now = self._backends.database.now()
            joined = JoinedRun(
                sync_id=session.sync.sync_id,
                name=joining.run,
                token=session.token,
                expires_at=now + timedelta(seconds=joining.idle_seconds),
                terms=Terms(
                    manifest=session.sync.manifest if started.state is BaselineState.FOUND else None,
                    baseline=str(started.state),
                    options=agreed_options(settings, self._backends.signing_key),
                    idle_seconds=joining.idle_seconds,
                    started_at=now,
                ),
            )
            self._tables.begin(joined)
            return joined

    # Batches

    def add(self, records: Any, batch: str) -> bool:
        """Hand a batch in; False if it was in already, which changes nothing and reads nothing.

        Raises `Fenced` if the run takes no more batches, and `SourceError` and its like if the records can't be
        read; nothing of the batch is kept then.
        """
        check_name("a batch", batch)
        joined = self._current()
        have = {entry.batch for entry in self._tables.shares(joined.sync_id, joined.name)}
        if batch in have:
            return False
        self._refuse_overtaken(joined)
        if joined.state != OPEN:
            raise Fenced(
                f"sync {self._settings.name}: run {joined.name} was sealed before batch {batch} came; nothing of the "
                "batch is used. The next run finds what it holds"
            )
        refuse_batch(joined, have, batch)
        source = open_source(records)
        if source.location != "rows":
            raise ConfigurationError(
                f"sync {self._settings.name}: a batch is rows, or a table with the Arrow PyCapsule interface; read "
                f"{source.location} first, such as by pyarrow.dataset.Scanner.to_reader()"
            )
        folder = self._backends.home.new_spool(joined.sync_id)
        try:
            entry = self._share(source, batch, Spool(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            taken: bool = self._tables.add(joined, entry)
        except Fenced:
            drop_shares(self._backends, self._settings.name, joined, [entry.object])
            raise Fenced(
                f"sync {self._settings.name}: run {joined.name} was sealed, given up or overtaken while batch {batch} "
                "was read; nothing of it is used"
            ) from None
        except RundiffError:
            drop_shares(self._backends, self._settings.name, joined, [entry.object])
            raise
        if not taken:
            drop_shares(self._backends, self._settings.name, joined, [entry.object])
        self._last_sign = time.monotonic()
        return taken

    def _share(self, source: Source, batch: str, spool: Spool) -> Entry:
        """Read a batch and leave its share in the store."""
        settings, baseline = self._settings, self._open_baseline()
        manifest = baseline.manifest
        rules = ReadingRules.of(settings, self._backends.signing_key)
        request = ReadRequest(
            options=settings.reading,
            primary_key=settings.primary_key,
            pins=None if manifest is None else manifest.pins,
        )
        seen = open_seen(baseline.positions, keep_all=rules.strategy.kind == "function")
        with source.open(request) as reading, spool:
            read = read_all(reading, rules, baseline, (seen, spool), self._sign_of_life)
        if read.invalid_keys and settings.policies.on_invalid_key == "fail":
            raise PolicyViolation(
                f"sync {settings.name}, batch {batch}: {read.invalid_keys:,} records have no valid key, such as "
                f"{read.samples['invalid_keys'][0]}, and on_invalid_key is fail. Nothing of the batch was kept"
            )
        store, sync_id = self._backends.store, self._joined.sync_id
        path = store.workspace(sync_id) / f"{SHARE}{uuid.uuid4().hex}"
        try:
            write_share(path, None if manifest is None else manifest.name, read, (seen, spool))
            digest = digest_of_file(path)
            store.put(sync_id, path)
        finally:
            path.unlink(missing_ok=True)
        return Entry(
            batch=batch,
            object=path.name,
            digest=digest,
            records=read.records,
            worker=self._worker,
            added_at=self._backends.database.now(),
        )

    def _open_baseline(self) -> Baseline:
        if self._baseline is None:
            manifest = self._joined.terms.manifest
            try:
                self._baseline = (
                    Baseline.empty()
                    if manifest is None
                    else open_baseline(self._backends, self._sync, manifest)
                )
            except BaselineLost as error:
                raise refusal(self._settings.name, Lost.told_by(error), self._destination) from error
        return self._baseline

    def _sign_of_life(self, progress: Progress) -> None:
        # By the thread that reads, between batches: the embedded database's connection is not for two.
        if time.monotonic() - self._last_sign > min(60.0, self._joined.terms.idle_seconds / 4):
            self._tables.change(self._joined, lambda roster: roster)
            self._last_sign = time.monotonic()
        if self._backends.progress is not None:
            self._backends.progress(progress)

    def done(self) -> None:
        """Report that this worker hands in no more batches; may be called again."""
        if self._given_up:
            return
        joined = self._current()
        if joined.state == OPEN:
            me = self._worker
            self._tables.change(
                joined, lambda roster: msgspec.structs.replace(roster, workers={**roster.workers, me: True})
            )

    def view(self) -> JoinedView:
        """Tell how far the run has come."""
        joined = self._current()
        have = tuple(entry.batch for entry in self._tables.shares(joined.sync_id, joined.name))
        roster = joined.roster
        missing = tuple(batch for batch in roster.batches or () if batch not in have)
        lacking = max(len(missing), (roster.expected or 0) - len(have))
        return JoinedView(
            run=joined.name,
            batches=have,
            missing=missing,
            lacking=0 if joined.state == CLOSED else lacking,
            working=tuple(sorted(name for name, done in roster.workers.items() if not done)),
            announced=roster.batches is not None or roster.expected is not None,
            result=self._result(joined),
        )

    def _current(self) -> JoinedRun:
        found: JoinedRun | None = self._tables.find(self._joined.sync_id, self._joined.name)
        if found is None or (found.terms.started_at != self._joined.terms.started_at):
            raise Fenced(
                f"sync {self._settings.name}: run {self._joined.name} was given up; its batches are not used. "
                "Join again to begin it anew"
            )
        return found

    def _refuse_overtaken(self, joined: JoinedRun) -> None:
        if joined.state != CLOSED and joined.token != self._sync.token:
            raise Fenced(
                f"sync {self._settings.name}: another run has taken the sync over since run {joined.name} began; its "
                "batches are not used. Join again to begin it anew"
            )

    def _result(self, joined: JoinedRun) -> RunResult | None:
        if joined.state != CLOSED or joined.run is None:
            return None
        run = self._backends.database.run(joined.sync_id, joined.run)
        return None if run is None else result_from_json(run.result)

    def close(self) -> None:
        """Let go of the destination."""
        self._destination.close()

    # Sealing

    def seal(self) -> RunResult:
        """Put the batches together, compare, deliver and commit; sealed before, it gives that result.

        Raises `StateChanged` while batches or workers are missing; nothing was written then.
        """
        result = self._result(self._current())
        if result is not None:
            return result
        self._refuse_overtaken(self._current())
        self._refuse_unready()
        # Another worker may be sealing it: that result is this one's, too.
        settings = msgspec.structs.replace(self._settings, wait=True)
        with Session.open(self._backends, settings, self._destination, WORKERS, joined=self.name) as session:
            recover(session, settings)
            joined = self._current()
            result = self._result(joined)
            if result is not None:
                return result
            source = shares_source(self._backends, settings.name, joined)
            execution = Execution.begin(session, RunKind.SYNC, Baseline.empty())
            self._tables.number(joined, execution.run.run)
            with failing(execution):
                sealed = find_and_seal(session, settings, source, execution, GatheringFinder)
                if isinstance(sealed, RunResult):
                    return sealed
                return deliver_changes(execution, sealed, settings)

    def _refuse_unready(self) -> None:
        joined = self._current()
        withdraw_lost(self._backends, self._settings.name, joined)
        view = self.view()
        prefix = f"sync {self._settings.name}: run {self.name} can't be sealed yet: "
        if view.lacking:
            named = (
                f": {', '.join(view.missing[:10])}{', …' * (len(view.missing) > 10)}" if view.missing else ""
            )
            raise StateChanged(
                f"{prefix}{view.lacking:,} of its batches {'is' if view.lacking == 1 else 'are'} missing{named}. "
                "Hand them in first. Nothing was written"
            )
        others = [name for name in view.working if name != self._worker]
        if others and not view.announced:
            raise StateChanged(
                f"{prefix}{', '.join(others[:5])} {'has' if len(others) == 1 else 'have'} not reported done. Wait for "
                "them, join in the place of one that died (worker=), or announce the batches (batches=, expected=). "
                "Nothing was written"
            )

    def discard(self) -> None:
        """Give the run up: its batches are not used, and the sync is free for others."""
        joined = self._current()
        if joined.state == CLOSED:
            raise StateChanged(
                f"sync {self._settings.name}: run {self.name} was sealed; it can't be given up"
            )
        if joined.token != self._sync.token:
            # Another run has the sync: nothing is held any more, and its sweep removes the shares.
            return
        with Session.open(
            self._backends, self._settings, self._destination, WORKERS, joined=self.name
        ) as session:
            recover(session, self._settings)
            joined = self._current()
            if joined.state == CLOSED:
                raise StateChanged(
                    f"sync {self._settings.name}: run {self.name} was sealed; it can't be given up"
                )
            names = [entry.object for entry in self._tables.shares(joined.sync_id, joined.name)]
            self._tables.remove(joined)
            self._given_up = True
            drop_shares(self._backends, self._settings.name, joined, names)
