"""One run per sync at a time, on one machine: a held file lock and a fencing token.

The lock belongs to the process (the kernel drops it when the process dies), so a dead holder is
succeeded at once. The token, given out by the database, refuses a holder that lost the lock without
noticing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from rundiff.database.contract import Database
from rundiff.errors import StorageError, SyncBusy

__all__ = ["Lease", "is_held"]


class Lease:
    """Held from `take` until `release`."""

    def __init__(self, handle: int, database: Database, sync_id: str, token: int) -> None:
        self._handle: int | None = handle
        self._database = database
        self._sync_id = sync_id
        self.token = token

    @classmethod
    def take(cls, path: Path, database: Database, sync: tuple[str, str], *, wait: bool) -> Lease:
        """Take the lease of a (sync_id, name), or raise `SyncBusy` that says who holds it."""
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
            holder = database.holder(sync_id) or "another process"
            raise SyncBusy(
                f"another run of sync {name} is under way ({holder}); wait for it to end, or use --wait"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        try:
            token = database.acquire(sync_id, holder, datetime.now(UTC))
        except BaseException:
            os.close(handle)
            raise
        return cls(handle, database, sync_id, token)

    def release(self) -> None:
        """Give the lease back; may be called more than once."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            # What it says of the holder matters only while the lock is held.
            with contextlib.suppress(StorageError):
                self._database.release(self._sync_id, self.token)
        finally:
            os.close(handle)


def is_held(path: Path) -> bool:
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
