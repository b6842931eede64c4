"""One run per sync at a time: the database's lease with its fencing token.

Where the database is a file, a lock on another file is held beside the lease: it belongs to the process
(the kernel drops it when the process dies), so a dead holder is succeeded at once. Where it is a server,
the lease ends by the server's clock unless a thread keeps it alive, and a dead holder is succeeded then.
Either way the token refuses a holder that lost the lease without noticing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from rundiff.database.contract import Database
from rundiff.errors import Fenced, StorageError, SyncBusy

__all__ = ["Lease", "holder_of"]

_BEATS = 3
"""Heartbeats in the time of a lease: two may be lost."""
_POLL_SECONDS = 0.5


class Lease:
    """Held from `take` until `release`."""

    def __init__(self, database: Database, sync_id: str, token: int, keeper: _FileLock | _Heart) -> None:
        self._database = database
        self._sync_id = sync_id
        self._keeper: _FileLock | _Heart | None = keeper
        self.token = token

    @classmethod
    def take(
        cls, path: Path, database: Database, sync: tuple[str, str], *, wait: bool, joined: str | None = None
    ) -> Lease:
        """Take the lease of a (sync_id, name), or raise `SyncBusy` that says who holds it.

        `path` is the sync's lock file, for databases that need one. `joined` names the joined run that
        is to be sealed: the one that does not stand in the way.
        """
        sync_id, name = sync
        while True:
            lock = None
            if database.lease_seconds is None:
                lock = _FileLock.take(path, database, sync, wait=wait)
            try:
                token = database.acquire(sync_id, _me(), database.now(), over=lock is not None, joined=joined)
            except BaseException as error:
                if lock is not None:
                    lock.stop()
                if not isinstance(error, SyncBusy):
                    raise
                if not wait:
                    raise _busy(name, str(error)) from None
                time.sleep(_POLL_SECONDS)
            else:
                return cls(database, sync_id, token, lock or _Heart.start(database, sync_id, token))

    def release(self) -> None:
        """Give the lease back; may be called more than once."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        if isinstance(keeper, _Heart):
            keeper.stop()
        try:
            # A lease that can't be given back ends by itself; with a lock, only the lock counts.
            with contextlib.suppress(StorageError):
                self._database.release(self._sync_id, self.token)
        finally:
            keeper.stop()


def holder_of(database: Database, path: Path, sync_id: str) -> str | None:
    """Say who holds a sync right now; `path` is its lock file, for databases that need one."""
    if database.lease_seconds is None and not _is_held(path):
        return database.joined.holder(sync_id)
    return database.holder(sync_id) or database.joined.holder(sync_id)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _busy(name: str, holder: str) -> SyncBusy:
    return SyncBusy(f"another run of sync {name} is under way ({holder}); wait for it to end, or use --wait")


class _FileLock:
    """A lock that the kernel drops when the process ends."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def take(cls, path: Path, database: Database, sync: tuple[str, str], *, wait: bool) -> _FileLock:
        sync_id, name = sync
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"the lock of sync {name} can't be opened ({error})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            raise _busy(name, database.holder(sync_id) or "another process") from None
        except BaseException:
            os.close(handle)
            raise
        return cls(handle)

    def stop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class _Heart:
    """A thread that keeps a lease alive while the run goes on."""

    def __init__(self, database: Database, sync_id: str, token: int) -> None:
        self._database = database
        self._sync_id = sync_id
        self._token = token
        self._stopped = threading.Event()
        # A daemon: a process that ends without giving the lease back shall end.
        self._thread = threading.Thread(target=self._beat, name="rundiff-lease", daemon=True)

    @classmethod
    def start(cls, database: Database, sync_id: str, token: int) -> _Heart:
        heart = cls(database, sync_id, token)
        heart._thread.start()
        return heart

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        interval = (self._database.lease_seconds or 0.0) / _BEATS
        while not self._stopped.wait(interval):
            try:
                # The time is for the record. Asking the database for it would wait for a transaction of the
                # run, which may last longer than the lease.
                self._database.heartbeat(self._sync_id, self._token, datetime.now(UTC))
            except Fenced:
                # The run finds out at its next write, which is where it has to stop.
                return
            except StorageError:
                # Out of reach for now; if it lasts, the run's own next statement says so.
                continue


def _is_held(path: Path) -> bool:
    """Say whether some process holds a lock right now."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
