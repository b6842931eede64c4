"""`rundiff.Run`: one run that several workers make together, on one machine or on many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from rundiff.api import storage_of
from rundiff.engine.sink import open_sink
from rundiff.engine.views import JoinedView
from rundiff.engine.workspace import Workspace
from rundiff.errors import RundiffError
from rundiff.keywords import Arguments
from rundiff.model import RunResult
from rundiff.project import ad_hoc

if TYPE_CHECKING:
    from rundiff.engine.joining import Joined

__all__ = ["JoinArguments", "Run"]

_OWN = ("batches", "expected", "worker", "idle_seconds")


class JoinArguments(Arguments, total=False):
    """What `Run.join` takes beside the options of a sync."""

    batches: Sequence[str]
    expected: int
    worker: str
    idle_seconds: float


class Run:
    """A run that several workers make together; made by `Run.join`.

    Every worker joins the run under the name that they agreed on, and hands its batches in. When all are in, one
    worker seals the run: the batches count as if one process had read them in the order of their ids (as
    text), then row by row. Used in a `with` statement, the worker reports done when the block ends well.
    """

    def __init__(self, workspace: Workspace, joined: Joined) -> None:
        self._workspace: Workspace | None = workspace
        self._joined = joined

    @classmethod
    def join(
        cls,
        *,
        name: str,
        run: str,
        primary_key: str | Sequence[str],
        destination: str,
        into: str | None = None,
        home: str | os.PathLike[str] | None = None,
        **options: Unpack[JoinArguments],
    ) -> Self:
        """Join a run, or begin it.

        Args:
            name: the sync.
            run: the name of the run, the same for all its workers and another for each run: a date, the id of a
                job.
            primary_key: the field or fields that identify a record.
            destination: a database URL, or a path ending in .jsonl, .csv or .parquet. The worker that begins the run
                and the one that seals it must reach it.
            into: the table of a database destination.
            home: the home directory; else `RUNDIFF_HOME`, else `.rundiff`.
            options: those of `Sync`; further, `batches`: the ids of all batches, or `expected`: how many there
                are. Without either, the run deletes nothing, since nothing proves that all came. `worker`:
                a name for this worker; by default its process and host. `idle_seconds`: how long the run keeps
                the sync without a sign of life of any worker; by default 3600.

        Raises:
            SyncBusy: another run has the sync.
            ConfigurationError: the workers disagree on an option.
            BaselineLost: and other errors of a start, as for `sync`.
        """
        from rundiff.engine.joinable import IDLE_SECONDS, Joining
        from rundiff.engine.joining import Joined

        given: dict[str, Any] = dict(options)
        own = {option: given.pop(option, None) for option in _OWN}
        fields = [primary_key] if isinstance(primary_key, str) else list(primary_key)
        place, kept = storage_of(home, given)
        settings = ad_hoc(None, fields, destination, into, name, kept)
        idle = own["idle_seconds"]
        batches = own["batches"]
        joining = Joining(
            run=run,
            batches=None if batches is None else tuple(batches),
            expected=own["expected"],
            worker=own["worker"],
            idle_seconds=IDLE_SECONDS if idle is None else float(idle),
        )
        sink = open_sink(settings.destination, refuse_caller=name)
        workspace = Workspace(place)
        try:
            return cls(workspace, Joined(workspace.backends(), settings, sink, joining))
        except BaseException:
            workspace.close()
            raise

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._joined.name

    def add(self, records: Any, *, batch: str) -> bool:
        """Hand a batch in; returns False if a batch of that id is in already, which then changes nothing.

        `records` are an iterable of mappings, or an object that speaks the Arrow PyCapsule interface. A batch
        counts when this returns, and not before: one that was broken off is handed in again, by any worker.

        Raises:
            Fenced: the run was sealed or given up, or another run took the sync over; the batch is not used.
            SourceError: and its like: the records can't be read; nothing of the batch is kept.
            ConfigurationError: the batch is none of those that were announced.
        """
        with self._opened():
            return self._joined.add(records, batch)

    def done(self) -> None:
        """Report that this worker hands in no more batches."""
        with self._opened():
            self._joined.done()

    def status(self) -> JoinedView:
        """Tell which batches are in and which are missing, who is still at it, and the result once there is one."""
        with self._opened():
            return self._joined.view()

    def seal(self) -> RunResult:
        """Compare, deliver and commit what the workers handed in; done before, it gives the same result.

        While another worker seals the run, this waits for it. A worker that died in the middle of this left
        nothing half-done: any other may seal.

        Raises:
            StateChanged: announced batches are missing, or workers have not reported done; nothing was written.
            Fenced: another run took the sync over, or the run was given up.
            RundiffError: as for `sync`, if the run failed; it may be sealed again.
        """
        with self._opened():
            return self._joined.seal()

    def discard(self) -> None:
        """Give the run up: its batches are not used, and the sync is free. A run of its name may begin anew."""
        with self._opened():
            self._joined.discard()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        if self._workspace is None:
            raise RundiffError(f"this worker has left run {self.name}; join again to go on")
        yield

    def close(self) -> None:
        """Leave without reporting done; may be called again."""
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            self._joined.close()
            workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._workspace is not None:
                self._joined.done()
        finally:
            self.close()
