"""What a signature store owes a run: immutable objects, and one pointer per sync.

Duties:

1. `put` takes a finished local file over under its name; when it returns, the object is as durable as
   the store makes things. The same name twice is the same object: idempotent.
2. `get` gives a local path that can be memory-mapped, or None if the store lacks the object or any
   part of it. It never makes one up, and never gives a local copy of what the store no longer has.
3. `touch` keeps objects from expiring for that many seconds, and says which of them are missing, whole or
   in part; manifests expire before segments. `drop` removes objects, and ignores missing ones.
4. `swap_manifest` sets the pointer to the current manifest if the given token is not lower than the
   one it was last set with, else raises `Fenced`. The pointer is a cache: the database decides.
5. `names` lists a sync's objects, for the removal of those that no manifest names.
6. A store that can't be reached raises `StorageError`: unreachable is not lost. `why_missing` says in half a
   sentence what became of objects that the database names, as far as can be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

__all__ = ["LIFETIME", "SHARE", "SignatureStore", "StoreReport", "is_manifest", "is_share"]

LIFETIME = 7 * 24 * 3600.0
"""Seconds that stores which let objects expire keep what a run leaves, unless it is touched."""

SHARE = "share-"
"""What the names of shares begin with: what batches of joined runs left, read once, by who seals the run."""


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself; nothing in it is secret."""

    place: str
    """Where it is: a folder, or a URL without password."""
    version: str
    """Of the server; empty for files."""
    expires: bool
    """Whether objects that are not touched go away by themselves."""
    warnings: tuple[str, ...] = ()
    """Sentences on settings that endanger what is kept."""


class SignatureStore(Protocol):
    """A place for the immutable objects of baselines."""

    def workspace(self, sync_id: str) -> Path:
        """Give a local folder in which files for `put` may be written."""

    def put(self, sync_id: str, path: Path) -> None:
        """Take over a file of the workspace as an object of that name."""

    def get(self, sync_id: str, name: str) -> Path | None:
        """Find an object."""

    def touch(self, sync_id: str, names: Iterable[str], seconds: float) -> Sequence[str]:
        """Keep objects alive; give those that are missing."""

    def drop(self, sync_id: str, names: Iterable[str]) -> None:
        """Remove objects."""

    def sync_ids(self) -> Sequence[str]:
        """List the syncs that have objects."""

    def names(self, sync_id: str) -> Sequence[str]:
        """List objects."""

    def swap_manifest(self, sync_id: str, manifest: str | None, token: int) -> None:
        """Point to the current manifest."""

    def current_manifest(self, sync_id: str) -> str | None:
        """Read the pointer."""

    def report(self) -> StoreReport:
        """Reach the store, and tell what it is."""

    def why_missing(self, sync_id: str, manifest: str, since: datetime | None, seconds: float) -> str:
        """Say why objects of a manifest may be missing that were last touched at `since`, for `seconds`."""

    def close(self) -> None:
        """Let go of connections; may be called more than once."""


def is_manifest(name: str) -> bool:
    """Tell manifests from segments by their names."""
    return name.startswith("manifest-")


def is_share(name: str) -> bool:
    """Tell the shares of joined runs from what baselines consist of."""
    return name.startswith(SHARE)
