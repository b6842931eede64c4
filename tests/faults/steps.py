"""The durable steps of this process: look at each of them, or die or fail at one.

A step is a sync, a rename, a removal or a commit. What a crash leaves is what other processes see of
the files at that moment, so a copy of the folder, taken by another process, is as good as a crash: one
run gives all of them. A "torn" copy has the file that is about to be synced cut in the middle of what
was written to it since its last sync, as a power cut may leave it. Real kills prove the likeness.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Steps"]


@dataclass
class Steps:
    """Install once, in a process of its own. What is in `folder` now is taken for durable."""

    folder: Path
    copies: Path | None = None
    """Where to copy the folder to before each step."""
    kill_at: int = 0
    """Or the step, from 1, before which the process is killed."""
    fail_at: int = 0
    """Or the step that fails like one on a full disk, unless it is a removal."""
    count: int = 0
    _synced: dict[int, int] = field(default_factory=dict)

    def install(self) -> None:
        """Patch what makes changes durable."""
        for path in self.folder.rglob("*"):
            status = path.stat()
            self._synced[status.st_ino] = status.st_size
        os.fsync = self._fsync(os.fsync)
        for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (shutil, "rmtree")):
            setattr(module, name, self._step(name, getattr(module, name)))
        connect = sqlite3.connect
        before = self.before

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    before("commit")
                return super().execute(sql, *arguments)

        sqlite3.connect = lambda *a, **k: connect(*a, **{**k, "factory": Connection})  # type: ignore[assignment]
        from rundiff.destinations.duckdb import DuckdbConnection

        execute = DuckdbConnection.execute

        def counted(connection: DuckdbConnection, sql: str, *arguments: Any) -> int:
            if sql == "COMMIT":
                before("commit")
            return execute(connection, sql, *arguments)

        DuckdbConnection.execute = counted  # type: ignore[assignment,method-assign]

    def before(self, name: str) -> None:
        """Note a step that is about to be done."""
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.count == self.fail_at:
            if name == "commit":
                raise sqlite3.OperationalError("database or disk is full")
            if name not in ("unlink", "rmtree"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._copy(name)

    def _copy(self, name: str) -> Path | None:
        if self.copies is None:
            return None
        copy = self.copies / f"{self.count:03d}-{name}"
        # By another process: closing a file of SQLite would drop this one's locks on it.
        subprocess.run(["cp", "-a", str(self.folder), str(copy)], check=True)
        return copy

    def _step(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self.before(name)
            return original(*arguments, **options)

        return step

    def _fsync(self, original: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            status = os.fstat(handle)
            synced = self._synced.get(status.st_ino, 0)
            self.before("fsync")
            if stat.S_ISREG(status.st_mode) and status.st_size > synced:
                torn = self._copy("torn")
                if torn is not None:
                    path = Path(f"/proc/self/fd/{handle}").readlink()
                    os.truncate(torn / path.relative_to(self.folder), (synced + status.st_size) // 2)
            original(handle)
            self._synced[status.st_ino] = status.st_size

        return fsync
