"""What a database owes a run's change set: the write log of each run, and what a run left held.

A change set is a folder: the log's files by action, each sorted by primary key signature,
`entries.arrow` for baseline entries without a write record, and `meta.json`. The engine makes and reads
such folders; a write log keeps them.

Duties:

1. `seal` and `hold` take a finished folder over; when they return, it is durable under its run's
   number, and what they give is a local folder with the same files. The same number again replaces
   what was there: a database restored from an older copy gives numbers again.
2. `folder` and `held` give a local folder with the files, fetched if need be. Where the log has none,
   they give a path at which nothing is. `part` need not give more than some keys' records.
3. `drop` and `retain` remove what no run names; what is missing is ignored.
4. Whatever takes a token raises `Fenced` if a higher one was given out since, and then changes nothing,
   unless the database's leases are held by a lock on a file, which a successor can't get.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from rundiff.durable import sync_file, sync_folder

if TYPE_CHECKING:  # the command that only looks at runs needs no Arrow
    import pyarrow as pa

    from rundiff.database.flaps import Flaps

__all__ = ["FETCHED", "FolderLog", "LogFolders", "LogFormat", "LogPart", "LogWriter", "WriteLog"]


FETCHED = "fetch-"
"""What folders below the root are called while something is fetched into them, before the number of the process."""


class LogFolders(Protocol):
    """Where local folders of change sets are."""

    @property
    def root(self) -> Path:
        """A folder that exists, on the same file system."""

    def log(self, sync_id: str, run: int) -> Path:
        """The write log of one run."""

    def held(self, sync_id: str, run: int) -> Path:
        """What a run left for an approval."""


class LogWriter(Protocol):
    """Writes one file of the log."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append records."""


class LogFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What a database that takes change sets apart has to know of their files."""

    files: tuple[str, str, str]
    """The names of the files with deletes, updates and creates: the order of the sequence."""
    read: Callable[[Path, int], Iterator[pa.RecordBatch]]
    """Reads such a file in batches of at most so many rows; raises `StorageError`."""
    writer: Callable[[Path], AbstractContextManager[LogWriter]]
    json_text: Callable[[pa.Array], pa.Array]
    """Renders a column as JSON text, as the change stream does."""


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a write log that may lack records; those that are there keep their order."""

    folder: Path
    """At which nothing is where the log has nothing. It stays for as long as the process needs it."""
    pieces: Mapping[str, Sequence[tuple[int, int]]] = msgspec.field(default_factory=dict)
    """By file: at which row of the part a piece begins, and at which row of the whole file; none: it is whole."""

    def row_in_log(self, file: str, row: int) -> int:
        """Give the row in the whole file, from 0, of a row in the part of it."""
        pieces = self.pieces.get(file)
        if not pieces:
            return row
        start, origin = pieces[bisect_right(pieces, row, key=lambda piece: piece[0]) - 1]
        return origin + row - start


class WriteLog(Protocol):
    """A place for change sets that have a number."""

    def seal(self, sync_id: str, run: int, token: int, folder: Path, *, new_action: str) -> Path:
        """Keep a run's write log; its new records are to `create` or to `insert`."""

    def hold(self, sync_id: str, run: int, token: int, folder: Path) -> Path:
        """Keep what waits for an approval."""

    def folder(self, sync_id: str, run: int) -> Path:
        """Give a run's write log."""

    def held(self, sync_id: str, run: int) -> Path:
        """Give what a run left for an approval."""

    def part(self, sync_id: str, run: int, signatures: pa.Array) -> LogPart:
        """Give of a run's write log at least the records of these keys (fixed_size_binary[32]), in any order."""

    def to_fetch(self, runs: Sequence[tuple[str, int]]) -> int:
        """Say how many bytes `folder` would fetch for these runs (sync_id, run) that are not here yet."""

    def runs_of(self, sync_id: str, signatures: Sequence[bytes]) -> Set[int] | None:
        """Name the runs that have a write record for one of these keys; None: any run may."""

    def flaps(self, sync_id: str, runs: Sequence[int], below: int | None) -> Flaps | None:
        """Find the records that these runs changed back and forth; None: the folders tell.

        With `below`, only keys whose first 64 bits are under it count.
        """

    def drop(self, sync_id: str, run: int, token: int) -> None:
        """Remove a run's write log."""

    def retain(self, sync_id: str, token: int, runs: Set[int], held: int | None) -> None:
        """Remove all of a sync but the write logs of these runs, and what this run left held."""


class FolderLog:
    """Write logs as folders on a local disk: the only copy."""

    def __init__(self, folders: LogFolders) -> None:
        self._folders = folders

    def seal(self, sync_id: str, run: int, token: int, folder: Path, *, new_action: str) -> Path:  # noqa: ARG002 -- the contract's signature
        """Rename the folder, synced."""
        return _keep(folder, self.folder(sync_id, run))

    def hold(self, sync_id: str, run: int, token: int, folder: Path) -> Path:  # noqa: ARG002 -- as above
        """Rename the folder, synced."""
        return _keep(folder, self.held(sync_id, run))

    def folder(self, sync_id: str, run: int) -> Path:
        """Give the folder."""
        return self._folders.log(sync_id, run)

    def held(self, sync_id: str, run: int) -> Path:
        """Give the folder."""
        return self._folders.held(sync_id, run)

    def part(self, sync_id: str, run: int, signatures: pa.Array) -> LogPart:  # noqa: ARG002 -- as above
        """Give all of it: it is here."""
        return LogPart(folder=self.folder(sync_id, run))

    def to_fetch(self, runs: Sequence[tuple[str, int]]) -> int:  # noqa: ARG002 -- as above
        """Nothing."""
        return 0

    def runs_of(self, sync_id: str, signatures: Sequence[bytes]) -> Set[int] | None:  # noqa: ARG002 -- as above
        """There is no index."""
        return None

    def flaps(self, sync_id: str, runs: Sequence[int], below: int | None) -> Flaps | None:  # noqa: ARG002 -- as above
        """Files of Arrow's are the engine's to read."""
        return None

    def drop(self, sync_id: str, run: int, token: int) -> None:  # noqa: ARG002 -- as above
        """Remove the folder."""
        shutil.rmtree(self.folder(sync_id, run), ignore_errors=True)

    def retain(self, sync_id: str, token: int, runs: Set[int], held: int | None) -> None:  # noqa: ARG002 -- as above
        """Remove the other folders."""
        keep = {self.folder(sync_id, run) for run in runs}
        remove_others(self.folder(sync_id, 0).parent, keep)
        remove_others(self.held(sync_id, 0).parent, set() if held is None else {self.held(sync_id, held)})


def _keep(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        sync_file(path)
    sync_folder(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    os.replace(folder, target)
    sync_folder(target.parent)
    return target


def remove_others(above: Path, keep: Set[Path]) -> None:
    """Remove everything in a folder but what is named."""
    for path in above.glob("*"):
        if path in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
