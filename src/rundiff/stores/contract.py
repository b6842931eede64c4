"""What a signature store owes a run: immutable objects, and one pointer per sync.

Duties:

1. `put` takes a finished local file over under its name; when it returns, the object is durable. The
   same name twice is the same object: idempotent.
2. `get` gives a local path that can be memory-mapped, or None if there is no such object. It never
   makes one up.
3. `touch` keeps objects from expiring; `drop` removes them, and ignores missing ones.
4. `swap_manifest` sets the pointer to the current manifest if the given token is not lower than the
   one it was last set with, else raises `Fenced`. The pointer is a cache: the database decides.
5. `names` lists a sync's objects, for the removal of those that no manifest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["SignatureStore"]


class SignatureStore(Protocol):
    """A place for the immutable objects of baselines."""

    def workspace(self, sync_id: str) -> Path:
        """Give a local folder in which files for `put` may be written."""

    def put(self, sync_id: str, path: Path) -> None:
        """Take over a file of the workspace as an object of that name."""

    def get(self, sync_id: str, name: str) -> Path | None:
        """Find an object."""

    def touch(self, sync_id: str, names: Iterable[str]) -> None:
        """Keep objects alive."""

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
