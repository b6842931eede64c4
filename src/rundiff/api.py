"""The Python face: `sync`, `changes`, and `Sync` for all that one can do with a sync."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import msgspec

from rundiff.engine.views import FieldSchema, HeldSet, HistoryEntry, Plan, Verification
from rundiff.engine.workspace import Workspace
from rundiff.errors import ConfigurationError, RundiffError
from rundiff.keywords import Arguments
from rundiff.model import RunResult, SyncWriteRecord
from rundiff.project import Project, ad_hoc, storage
from rundiff.settings import Storage, SyncSettings

if TYPE_CHECKING:
    from rundiff.engine.changeset import ChangeSet
    from rundiff.engine.run import Execution
    from rundiff.engine.session import Session

__all__ = ["Changes", "Sync", "changes", "storage_of", "sync"]

_RECORDS = 10_000
"""How many write records are Python objects at a time."""


class Sync:
    """A named flow: one source, one primary key, one destination.

    Args:
        source: a path or glob, an iterable of mappings, an object that speaks the Arrow PyCapsule
            interface (pyarrow, polars, pandas, duckdb), or a function that takes a `ReadRequest` (the
            scope, the partitions, the cursor's highest value so far) and returns one of these.
        primary_key: the field or fields that identify a record.
        name: under which the sync's state is kept; derived from a path when left out.
        destination: a URL, a path ending in .jsonl, .csv or .parquet, `-`, a function that takes lists of
            `SyncWriteRecord`, or an object with such a method `write` (`rundiff.destinations.python` says
            what they return), or one that keeps `rundiff.destinations.contract`; None when the caller
            delivers.
        into: the table of a database destination.
        home: the home directory; else `RUNDIFF_HOME`, else `.rundiff`.
        options: see `rundiff.keywords.Options`; further, `database` and `signatures`, URLs of the database
            and the signature store; else `RUNDIFF_DATABASE` and `RUNDIFF_SIGNATURES`, else the home directory.

    Raises:
        ConfigurationError: an option is unknown or its value does not fit.
    """

    def __init__(
        self,
        source: Any,
        primary_key: str | Sequence[str],
        *,
        name: str | None = None,
        destination: Any = None,
        into: str | None = None,
        home: str | os.PathLike[str] | None = None,
        **options: Unpack[Arguments],
    ) -> None:
        fields = [primary_key] if isinstance(primary_key, str) else list(primary_key)
        self._storage, kept = storage_of(home, options)
        place = _path(destination)
        url = place if isinstance(place, str) else None
        self._settings = ad_hoc(_path(source), fields, url, into, name, kept)
        if place is not None and url is None:
            options_of = msgspec.structs.replace(self._settings.destination, function=place)
            self._settings = msgspec.structs.replace(self._settings, destination=options_of)

    @property
    def name(self) -> str:
        """The sync's name."""
        return self._settings.name

    def run(self) -> RunResult:
        """Execute the sync once. Raises `RundiffError` if the run failed; its `result` tells how far it came."""
        with self._workspace() as workspace:
            return workspace.run(self._settings)

    def plan(self, out: str | os.PathLike[str] | None = None) -> Plan:
        """Preview a run without changing any state; keep it at `out` for `apply`."""
        with self._workspace() as workspace:
            return workspace.plan(self._settings, None if out is None else Path(out))

    def apply(self, path: str | os.PathLike[str]) -> RunResult:
        """Deliver exactly what a plan holds; raises `StateChanged` if the baseline moved since."""
        with self._workspace() as workspace:
            return workspace.apply(Path(path), self._settings)

    def approve(self, digest: str | None = None) -> RunResult:
        """Deliver what a guard holds; raises `StateChanged` if `digest` names another set."""
        with self._workspace() as workspace:
            return workspace.approve(self.name, digest, destination=self._settings.destination)

    def discard(self) -> HeldSet:
        """Drop what a guard holds."""
        with self._workspace() as workspace:
            return workspace.discard(self.name)

    def retry(self, key: Mapping[str, Any] | None = None) -> RunResult:
        """Send what is set aside again, in a run of its own; with `key`, only that record.

        Raises `StateChanged` if nothing is set aside that could be sent.
        """
        with self._workspace() as workspace:
            return workspace.retry(self.name, key, self._settings.destination)

    def verify(self, *, repair: bool = False, limit: int = 20) -> Verification:
        """Compare what the destination's table holds with the baseline, row by row.

        With `repair`, rows that drifted or are missing are written again, in a run of its own. `limit` is
        how many keys of each kind of difference are given. Raises `ConfigurationError` for a destination
        that can't be read back.
        """
        with self._workspace() as workspace:
            return workspace.verify(self.name, self._settings, repair=repair, limit=limit)

    def adopt(self, *, dry_run: bool = False) -> RunResult:
        """Make a first baseline of what the destination's table already holds, in a run of its own.

        The source is read for its fields and their types; no row is written. With `dry_run` nothing is
        changed. Raises `StateChanged` if the sync has a baseline already.
        """
        with self._workspace() as workspace:
            return workspace.adopt(self._settings, dry_run=dry_run)

    def discard_record(self, key: Mapping[str, Any]) -> int:
        """Drop what is set aside of one record, and give the number of entries.

        The baseline stays as it is: a run that reads the record and finds it different tries again.
        """
        with self._workspace() as workspace:
            return workspace.discard_record(self.name, key)

    def reset(self) -> None:
        """Forget the baseline, key and destination; runs keep their numbers and history."""
        with self._workspace() as workspace:
            workspace.reset(self.name)

    def history(self, key: Mapping[str, Any]) -> Sequence[HistoryEntry]:
        """List every change of one record, oldest first."""
        with self._workspace() as workspace:
            return workspace.history(self.name, key)

    def schema(self) -> Sequence[FieldSchema]:
        """List the fields with their pinned types."""
        with self._workspace() as workspace:
            return workspace.schema(self.name)

    def _workspace(self) -> Workspace:
        return Workspace(self._storage)


def sync(
    source: Any,
    *,
    primary_key: str | Sequence[str],
    name: str | None = None,
    destination: Any,
    into: str | None = None,
    home: str | os.PathLike[str] | None = None,
    **options: Unpack[Arguments],
) -> RunResult:
    """Find what changed in a source since the last run, and deliver it.

    The arguments are those of `Sync`. The result's `status` is `committed`, or `held` when a guard
    holds deletions or the run. Raises `RundiffError` if the run failed.
    """
    return Sync(
        source, primary_key, name=name, destination=destination, into=into, home=home, **options
    ).run()


def changes(
    source: Any,
    *,
    primary_key: str | Sequence[str],
    name: str | None = None,
    home: str | os.PathLike[str] | None = None,
    **options: Unpack[Arguments],
) -> Changes:
    """Find what changed in a source since the last run; the caller delivers.

    Iterate over the result: its `SyncWriteRecord`s come as deletes, updates, creates. The run is
    committed when the loop ends, or, used in a `with` statement, when the block ends well. Leaving
    early or raising commits nothing: the next run finds the same changes again.
    """
    fields = [primary_key] if isinstance(primary_key, str) else list(primary_key)
    place, kept = storage_of(home, options)
    settings = ad_hoc(_path(source), fields, None, None, name or _default_name(source), kept)
    return Changes(settings, place)


def _default_name(source: Any) -> str | None:
    if isinstance(source, str | os.PathLike):
        return None
    raise ConfigurationError("changes of rows need a name, under which the baseline is kept: name=…")


def _path(source: Any) -> Any:
    return os.fspath(source) if isinstance(source, os.PathLike) else source


def storage_of(
    home: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> tuple[Storage, dict[str, Any]]:
    """Say where the state is kept, and give the options without what says so."""
    kept = dict(options)
    return storage(
        None if home is None else os.fspath(home),
        os.environ,
        Project(environ=os.environ),
        database=kept.pop("database", None),
        signatures=kept.pop("signatures", None),
    ), kept


_suspended: dict[tuple[str, str | None, str], tuple[int, Changes]] = {}
"""Runs of `changes` under way in this process, by home, database and name, with the thread that began them."""
_suspended_lock = threading.Lock()


class Changes:
    """The changes of one run, for the caller to deliver. Made by `rundiff.changes`."""

    def __init__(self, settings: SyncSettings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._key = (os.path.realpath(storage.home), storage.database, settings.name)
        self._workspace: Workspace | None = None
        self._session: Session | None = None
        self._execution: Execution | None = None
        self._changes: ChangeSet | None = None
        self._in_block = False
        self.result: RunResult | None = None
        """The run's result, once it was committed or held."""

    def __iter__(self) -> Iterator[SyncWriteRecord]:
        """Yield the write records; commits when all were taken, outside of a `with` block."""
        if self._execution is None and self.result is None:
            self._open()
        elif not self._in_block:
            raise RundiffError("these changes were taken already; call rundiff.changes again for a new run")
        if self._in_block:
            yield from self._records()
            return
        try:
            yield from self._records()
            self._commit()
        finally:
            # After a commit this finds nothing to give up.
            self.abandon()

    def __enter__(self) -> Self:
        self._open()
        self._in_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self.abandon()

    def _open(self) -> None:
        from rundiff.baseline.baseline import Baseline
        from rundiff.engine.caller import CallerDestination
        from rundiff.engine.flow import failing, find_and_seal
        from rundiff.engine.recovery import recover
        from rundiff.engine.run import Execution
        from rundiff.engine.session import Session
        from rundiff.model import RunKind
        from rundiff.sources import open_source

        self._take_turn()
        source = open_source(self._settings.source, self._settings.reading)
        self._workspace = Workspace(self._storage)
        try:
            self._session = Session.open(
                self._workspace.backends(), self._settings, CallerDestination(), source.location
            )
            recover(self._session, self._settings)
            self._execution = Execution.begin(self._session, RunKind.SYNC, Baseline.empty())
            with failing(self._execution):
                sealed = find_and_seal(self._session, self._settings, source, self._execution)
        except BaseException:
            self._execution = None
            self.abandon()
            raise
        if isinstance(sealed, RunResult):
            self.result = sealed
            self._execution = None
        else:
            self._changes = sealed

    def _take_turn(self) -> None:
        """Give up an earlier run of the same sync that this thread left without ending it."""
        me = threading.get_ident()
        with _suspended_lock:
            before = _suspended.get(self._key)
            mine = before is not None and before[0] == me
        if before is not None and mine:
            before[1].abandon()
        with _suspended_lock:
            _suspended.setdefault(self._key, (me, self))

    def _records(self) -> Iterator[SyncWriteRecord]:
        from rundiff.engine.log import change_batches
        from rundiff.engine.records import write_records

        execution, changes = self._execution, self._changes
        if execution is None or changes is None or execution.run.sealed is None:
            return
        size = min(self._settings.batch_size, _RECORDS)
        for batch in change_batches(changes.folder, execution.run.run, execution.run.sealed, size):
            for record in write_records(batch, execution.session.sync.sync_id, execution.run.started_at):
                if self._execution is not execution:
                    raise RundiffError(
                        f"sync {self._settings.name}: these changes were given up when a new run of the same "
                        "sync began; nothing of them was committed"
                    )
                yield record

    def _commit(self) -> None:
        from rundiff.database.contract import Acknowledged
        from rundiff.engine.flow import failing

        execution, changes = self._execution, self._changes
        if execution is None or changes is None or execution.run.sealed is None:
            return
        position = Acknowledged(execution.run.run, execution.run.sealed.total)
        with failing(execution):
            self.result = execution.commit(changes, position=position)
        self._execution = None

    def abandon(self) -> None:
        """Give the run up if it is not committed, and let go of everything; may be called again."""
        execution, self._execution = self._execution, None
        session, self._session = self._session, None
        workspace, self._workspace = self._workspace, None
        with _suspended_lock:
            entry = _suspended.get(self._key)
            if entry is not None and entry[1] is self:
                del _suspended[self._key]
        try:
            if execution is not None:
                execution.discard()
        finally:
            if session is not None:
                session.close()
            if workspace is not None:
                workspace.close()
