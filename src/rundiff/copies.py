"""Local copies of what servers keep: not removed under who uses them, and bounded in size.

A copy may go at any time at which nobody uses it, since the server has what it is of. Whoever uses copies holds a
shared lock on a file in the folder that they belong to, until it is done with all of them; who removes copies
takes that lock alone, and leaves a folder to others that is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

__all__ = ["InUse", "copies_in", "trim"]

LEAST_COUNTED = 1 << 20
"""What a copy counts for at least: the number of small ones is bounded, too."""
_LOCK = ".in-use"


class InUse:
    """The folders whose copies a process uses."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._lock = threading.Lock()

    def hold(self, folder: Path) -> None:
        """Keep the copies in a folder from being removed by others, until `release`."""
        with self._lock:
            if folder in self._held:
                return
            folder.mkdir(parents=True, exist_ok=True)
            handle = _lock_file(folder)
            # Who removes copies is done in a moment.
            fcntl.flock(handle, fcntl.LOCK_SH)
            self._held[folder] = handle

    def release(self) -> None:
        """Be done with all of them; may be called more than once."""
        with self._lock:
            while self._held:
                os.close(self._held.popitem()[1])


class _Copy(msgspec.Struct, frozen=True):
    used: float
    """Seconds since 1970."""
    size: int
    path: Path
    folder: Path


def trim(copies: Mapping[Path, Iterable[Path]], most: int) -> int:
    """Remove the copies used longest ago until all take no more than `most` bytes; gives the bytes that went.

    `copies` are files and folders, by the folder that is held for them. Those that others use stay; a file's or
    folder's time of change says when it was used last. Several processes may do this at once.
    """
    found = sorted(
        (copy for folder, paths in copies.items() for copy in _measured(folder, paths)),
        key=lambda copy: copy.used,
    )
    over = sum(copy.size for copy in found) - most
    removed = 0
    with contextlib.ExitStack() as stack:
        free: dict[Path, bool] = {}
        for copy in found:
            if removed >= over:
                break
            if copy.folder not in free:
                free[copy.folder] = stack.enter_context(_alone(copy.folder))
            if free[copy.folder]:
                _remove(copy.path)
                removed += copy.size
    return removed


def copies_in(folder: Path) -> Iterator[Path]:
    """List the files of a folder that are copies."""
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            yield path


def _measured(folder: Path, paths: Iterable[Path]) -> Iterator[_Copy]:
    for path in paths:
        with contextlib.suppress(OSError):  # gone meanwhile
            told = path.stat()
            size = told.st_size
            if path.is_dir():
                size = sum(each.stat().st_size for each in path.iterdir())
            yield _Copy(told.st_mtime, max(size, LEAST_COUNTED), path, folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock_file(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold a folder against all others; False if one of them uses it."""
    handle = _lock_file(folder)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
