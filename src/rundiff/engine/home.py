"""The home directory: where the embedded default keeps everything.

```
rundiff.sqlite                       syncs, runs, leases, acknowledgements, failures
syncs/SYNC_ID/lock                   held by the process that runs the sync
syncs/SYNC_ID/log/00000003/          the write log of run 3
syncs/SYNC_ID/held/                  what waits for an approval
syncs/SYNC_ID/spool/                 half-done work of the run under way
signatures/SYNC_ID/                  baselines: manifests and segments
```

With a database on a server only work under way and copies of what the server holds are here; all of it
may be lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from rundiff.copies import copies_in, trim
from rundiff.database.logs import FETCHED

__all__ = ["Home"]

_COPIED = re.compile(r"\d{8,}-[0-9a-f]{32}")
"""The name of a write log's copy: the run, and the seal of what it was made from."""


class Home:
    """Paths below one home directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    @property
    def database(self) -> Path:
        """The embedded database's file."""
        return self.root / "rundiff.sqlite"

    @property
    def signatures(self) -> Path:
        """The folder of the file store."""
        return self.root / "signatures"

    def sync(self, sync_id: str) -> Path:
        """The folder of one sync."""
        return self.root / "syncs" / sync_id

    def lock(self, sync_id: str) -> Path:
        """The lock of one sync."""
        return self.sync(sync_id) / "lock"

    def log(self, sync_id: str, run: int) -> Path:
        """The write log of one run."""
        return self.sync(sync_id) / "log" / f"{run:08d}"

    def held(self, sync_id: str, run: int) -> Path:
        """What a run left for an approval."""
        return self.sync(sync_id) / "held" / f"{run:08d}"

    def new_spool(self, sync_id: str | None) -> Path:
        """Make a folder for a reading; on the same file system as the log, which it becomes."""
        above = self.root / "plans" if sync_id is None else self.sync(sync_id) / "spool"
        folder = above / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        return folder

    def drop_spools(self, sync_id: str) -> None:
        """Remove half-done work; only the holder of the sync's lease may call this.

        What belongs to another process that lives is left to it: one that was stopped past its lease shall
        learn that from its token, and not from files that are gone.
        """
        folder = self.sync(sync_id) / "spool"
        for path in folder.glob("*"):
            owner = path.name.partition("-")[0]
            if not owner.isdigit() or int(owner) == os.getpid() or not _lives(int(owner)):
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Missing, or not empty.
            folder.rmdir()

    @property
    def cache(self) -> Path:
        """The folder of copies of baselines."""
        return self.root / "cache"

    def trim_copies(self, most: int) -> None:
        """Bound what copies of a server's baselines and write logs take, and remove half-fetched ones.

        Those that other processes use stay, and so does the embedded database's own write log.
        """
        copies: dict[Path, Iterable[Path]] = {}
        with contextlib.suppress(OSError):  # others may do the same
            for folder in self.cache.glob("*"):
                copies[folder] = list(copies_in(folder))
            for folder in (self.root / "syncs").glob("*"):
                logs = (*folder.glob("log/*"), *folder.glob("held/*"))
                if found := [path for path in logs if _COPIED.fullmatch(path.name)]:
                    copies[folder] = found
            trim(copies, most)
            for path in self.root.glob(f"{FETCHED}*"):
                owner = path.name.removeprefix(FETCHED).partition("-")[0]
                if owner.isdigit() and not _lives(int(owner)):
                    shutil.rmtree(path, ignore_errors=True)

    def relative(self, location: str) -> str:
        """Name a path relative to the home's parent when it lies below, so that both can move."""
        path = Path(location)
        if path.is_absolute() and path.is_relative_to(self.root.parent):
            return str(path.relative_to(self.root.parent))
        return location


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
