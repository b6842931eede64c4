"""Local copies of a server's objects: files, which the engine maps into memory.

A copy is only used while the server still has the object, and only if its bytes have the digest that the server
names. Of each sync the copies used last are kept, so that a worker that ran the last run fetches nothing. What all
copies of a home take is bounded by `rundiff.copies`, when nobody uses them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rundiff.copies import InUse, copies_in
from rundiff.stores.blob_plans import digest_of_file
from rundiff.stores.contract import is_share

__all__ = ["LocalCopies"]

_KEPT = 8
"""Copies of a sync: manifest, base and overlay of the current baseline, of the last, and a few."""
_FOLDER = "new"


class LocalCopies:
    """A folder of copies, one folder a sync."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._in_use = InUse()
        self._verified: dict[Path, tuple[int, int, int]] = {}

    def release(self) -> None:
        """Be done with all copies: they may be removed from now on."""
        self._in_use.release()

    def workspace(self, sync_id: str) -> Path:
        """Give the folder of files that are not objects yet; made if need be."""
        self._in_use.hold(self._root / sync_id)
        folder = self._root / sync_id / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, sync_id: str, path: Path) -> None:
        """Take a file of the workspace over as the copy of the object of its name, which was just sent."""
        if is_share(path.name):
            # Read once, and seldom here.
            path.unlink()
        else:
            self._take(sync_id, path)

    def _take(self, sync_id: str, path: Path) -> Path:
        target = self._root / sync_id / path.name
        # Not synced: what a crash leaves half of has another digest, and is fetched anew.
        os.replace(path, target)
        self._verified[target] = self._stamp(target)
        self._prune(sync_id)
        return target

    def find(self, sync_id: str, name: str, size: int, digest: str) -> Path | None:
        """Give the copy, if it has that size and digest."""
        path = self._root / sync_id / name
        try:
            if not path.exists():
                return None
            # From here on nobody removes it.
            self._in_use.hold(path.parent)
            stamp = self._stamp(path)
            if stamp[1] != size:
                return None
            # A digest of hundreds of megabytes takes a while: once a process for a file that stays as it is.
            if self._verified.get(path) != stamp and digest_of_file(path) != digest:
                return None
            os.utime(path)
            self._verified[path] = self._stamp(path)
        except OSError:
            return None
        return path

    def make(self, sync_id: str, name: str, fill: Callable[[Path], None]) -> Path:
        """Make a copy by a function that writes the file that it is given."""
        path = self.workspace(sync_id) / f"{os.getpid()}.{name}"
        try:
            fill(path)
            named = path.with_name(name)
            os.replace(path, named)
        finally:
            path.unlink(missing_ok=True)
        return self._take(sync_id, named)

    def drop(self, sync_id: str, names: Iterable[str]) -> None:
        """Remove copies, and files of the workspace, which are called `new/…`."""
        for name in names:
            path = self._root / sync_id / name
            path.unlink(missing_ok=True)
            self._verified.pop(path, None)

    def unfinished(self, sync_id: str) -> Iterator[str]:
        """List the files of the workspace as `new/…`."""
        for path in sorted((self._root / sync_id / _FOLDER).glob("*")):
            yield f"{_FOLDER}/{path.name}"

    def _stamp(self, path: Path) -> tuple[int, int, int]:
        told = path.stat()
        return told.st_ino, told.st_size, told.st_mtime_ns

    def _prune(self, sync_id: str) -> None:
        with contextlib.suppress(OSError):  # another process may do the same
            files = list(copies_in(self._root / sync_id))
            files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
            # Apart, so that shares never push out the baseline, which the next run needs again.
            shares = [path for path in files if is_share(path.name)]
            others = [path for path in files if not is_share(path.name)]
            for path in (*shares[_KEPT:], *others[_KEPT:]):
                path.unlink(missing_ok=True)
                self._verified.pop(path, None)
