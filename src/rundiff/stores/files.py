"""The signature store in a directory: one folder a sync, one file an object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rundiff.durable import sync_folder, write_file
from rundiff.errors import Fenced
from rundiff.stores.contract import StoreReport, is_manifest

__all__ = ["FileStore"]

_POINTER = "current.json"


class FileStore:
    """Objects as files below a folder; durable by fsync of the file, then of the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, sync_id: str) -> Path:
        folder = self._root / sync_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def workspace(self, sync_id: str) -> Path:
        """Give the folder of half-written files; same file system, so that `put` is a rename."""
        folder = self._folder(sync_id) / "new"
        folder.mkdir(exist_ok=True)
        return folder

    def put(self, sync_id: str, path: Path) -> None:
        """Rename a finished, synced file into place."""
        folder = self._folder(sync_id)
        os.replace(path, folder / path.name)
        sync_folder(folder)

    def get(self, sync_id: str, name: str) -> Path | None:
        """Find an object's file."""
        path = self._root / sync_id / name
        return path if path.is_file() else None

    def touch(self, sync_id: str, names: Iterable[str], seconds: float) -> Sequence[str]:  # noqa: ARG002 -- files don't expire
        """Say which files are missing."""
        return [name for name in names if self.get(sync_id, name) is None]

    def drop(self, sync_id: str, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            (self._root / sync_id / name).unlink(missing_ok=True)

    def sync_ids(self) -> Sequence[str]:
        """List the folders."""
        return sorted(path.name for path in self._root.glob("*") if path.is_dir())

    def names(self, sync_id: str) -> Sequence[str]:
        """List the objects, half-written files included as `new/…`."""
        folder = self._root / sync_id
        if not folder.is_dir():
            return []
        objects = [p.name for p in folder.iterdir() if p.is_file() and p.name != _POINTER]
        return sorted(objects) + sorted(f"new/{p.name}" for p in (folder / "new").glob("*"))

    def swap_manifest(self, sync_id: str, manifest: str | None, token: int) -> None:
        """Replace the pointer file."""
        path = self._folder(sync_id) / _POINTER
        if self._pointer(sync_id).get("token", 0) > token:
            raise Fenced(
                "another run has taken this sync over and committed since; this run's result is not used"
            )
        write_file(path, json.dumps({"manifest": manifest, "token": token}).encode())

    def current_manifest(self, sync_id: str) -> str | None:
        """Read the pointer file."""
        name = self._pointer(sync_id).get("manifest")
        return None if name is None else str(name)

    def report(self) -> StoreReport:
        """Name the folder."""
        return StoreReport(place=str(self._root), version="", expires=False)

    def why_missing(self, sync_id: str, manifest: str, since: datetime | None, seconds: float) -> str:  # noqa: ARG002 -- files don't expire
        """Files go away only when someone removes them."""
        if not (self._root / sync_id).is_dir():
            return f"there is no folder {self._root / sync_id} any more"
        newest = max((name for name in self.names(sync_id) if is_manifest(name)), default=None)
        if newest is not None and newest < manifest:
            return f"{self._root / sync_id} was restored from an older copy: it ends with {newest}"
        return f"someone removed it from {self._root / sync_id}"

    def close(self) -> None:
        """Files are not held open."""

    def _pointer(self, sync_id: str) -> dict[str, Any]:
        # A cache: one that is missing or damaged says nothing, and the next commit writes it anew.
        try:
            pointer = json.loads((self._root / sync_id / _POINTER).read_bytes())
        except (OSError, ValueError):
            return {}
        return pointer if isinstance(pointer, dict) and isinstance(pointer.get("token"), int) else {}
