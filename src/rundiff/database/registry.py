"""Find the database that a URL names; backends are imported only when they are named."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rundiff.database.contract import Database
from rundiff.errors import ConfigurationError
from rundiff.plugins import entry_points

__all__ = ["ENTRY_POINTS", "migrate_database", "open_database"]

ENTRY_POINTS = "rundiff.databases"
"""The group in which packages register `scheme = module:function`; the function takes the URL and gives a
`Database`."""

_CURRENT = "current"
_POSTGRESQL = "rundiff.database.postgresql:PostgresqlDatabase"
_SCHEMES = {"postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}


def open_database(url: str | None, embedded: Path) -> Database:
    """Open the database that a URL names, or the embedded one in the file `embedded` if none is named.

    Raises `ConfigurationError` for a scheme that nobody brings, `MissingDriver` where a package is missing,
    and `StorageError` where the database can't be used.
    """
    if url is None:
        from rundiff.database.embedded import EmbeddedDatabase

        return EmbeddedDatabase(embedded)
    scheme = url.partition("://")[0].lower()
    if scheme in _SCHEMES:
        module, name = _SCHEMES[scheme].split(":")
        factory: Callable[[str], Any] = getattr(import_module(module), name)
        opened: Database = factory(url)
        return opened
    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        brought: Database = entry.load()(url)
        return brought
    raise _unknown(scheme)


def migrate_database(url: str | None, embedded: Path) -> tuple[str, str | None, str]:
    """Bring a database's schema to the version that this Rundiff knows, keeping what it holds.

    Gives the place, the version that was found (None: it was empty) and the version that it has now.
    """
    if url is not None and url.partition("://")[0].lower() in _SCHEMES:
        from rundiff.database.migrating import migrate

        return migrate(url)
    # The others bring their tables up to date when they are opened.
    database = open_database(url, embedded)
    try:
        return database.place, _CURRENT, _CURRENT
    finally:
        database.close()


def _unknown(scheme: str) -> ConfigurationError:
    others = sorted(f"{name}://" for name in entry_points(group=ENTRY_POINTS).names)
    known = ", ".join(["postgresql://USER@HOST/NAME", *others])
    return ConfigurationError(
        f"there is no database {scheme}://: use {known}, install the package that brings it, or leave the "
        "database out to keep everything in the home directory"
    )
