"""Paths that destinations write to: read from URLs, and checked without creating anything."""

from __future__ import annotations

import os
from pathlib import Path

from rundiff.errors import ConfigurationError, DestinationError

__all__ = ["check_file", "check_folder", "database_path", "sync_folder"]


def database_path(url: str, scheme: str) -> Path:
    """Read the path of `scheme:///relative` or `scheme:////absolute`, and resolve it.

    The path stands as it is written, without percent decoding, as in SQLAlchemy's URLs. Raises
    `ConfigurationError` for databases in memory, options and hosts.
    """
    rest = url.removeprefix(f"{scheme}://")
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", ":memory:"):
        raise ConfigurationError(
            f"A destination {scheme}:// needs the path of a file: {scheme}:///relative.db or {scheme}:////absolute.db."
        )
    if "?" in path or "\0" in path:
        raise ConfigurationError(
            f"A destination {scheme}:// takes no options: leave out what follows the path."
        )
    return Path(os.path.realpath(path))


def check_file(path: Path) -> None:
    """Refuse a path that no file can be written at."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in it.")
    if path.exists():
        if not path.is_file():
            raise ConfigurationError(f"{path} is not a regular file: name one.")
        if not os.access(path, os.W_OK):
            raise DestinationError(f"{path} is read-only: let it be written, then run again.")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that is missing or can't be written."""
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}: create it, or name another path.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DestinationError(f"The folder {folder} is read-only: let it be written, then run again.")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; does nothing where folders can't be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
