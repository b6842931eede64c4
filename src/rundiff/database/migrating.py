"""The version of a PostgreSQL database's schema: checked by one query, changed by Alembic.

Alembic and SQLAlchemy, which take longer to import than a small sync may last, are imported only
where tables are made or changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rundiff.database.server import Address, Server, driver
from rundiff.errors import MissingDriver, StorageError

if TYPE_CHECKING:
    import psycopg

__all__ = ["SCHEMA_VERSION", "migrate", "require_current"]

SCHEMA_VERSION = "0002"
"""The newest of `rundiff.database.migrations.versions`. Versions are digits, compared as numbers."""

_VERSION_TABLE = "rundiff_schema_version"
_LOCK = 7_305_808_869_231_650_406
"""An advisory lock, held while tables are made or changed: any number that nobody else takes."""


def require_current(server: Server, address: Address) -> None:
    """Make the tables in an empty database; raises `StorageError` for an older or newer schema."""
    found = _version(server, address)
    if found is None:
        _upgrade(address)
        return
    _refuse_newer(found, address)
    if int(found) < int(SCHEMA_VERSION):
        raise StorageError(
            f"the tables in {address.place} are of an older Rundiff (schema {found}, this one needs "
            f"{SCHEMA_VERSION}); run `rundiff migrate`, which keeps all they hold"
        )


def migrate(url: str) -> tuple[str, str | None, str]:
    """Bring the schema up to date: gives the place, the version found (None: no tables) and the new one."""
    address = Address.parse(url)
    server = Server(address, patience=0)
    try:
        found = _version(server, address)
        if found is not None:
            _refuse_newer(found, address)
        if found != SCHEMA_VERSION:
            _upgrade(address)
        return address.place, found, SCHEMA_VERSION
    finally:
        server.close()


def _version(server: Server, address: Address) -> str | None:
    table = address.table(_VERSION_TABLE)
    if not server.rows("SELECT to_regclass(%s) IS NOT NULL AS known", [table])[0]["known"]:
        return None
    rows = server.rows(f"SELECT version_num FROM {table}")
    return str(rows[0]["version_num"]) if rows else None


def _refuse_newer(found: str, address: Address) -> None:
    if not found.isdigit() or int(found) > int(SCHEMA_VERSION):
        raise StorageError(
            f"the tables in {address.place} were written by a newer Rundiff (schema {found}, this one knows "
            f"{SCHEMA_VERSION}); upgrade Rundiff"
        )


def _upgrade(address: Address) -> None:
    try:
        from alembic import command
        from alembic.config import Config
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.pool import NullPool
    except ModuleNotFoundError as error:
        raise MissingDriver(
            f"making the tables of a PostgreSQL database needs the package {error.name}: "
            "pip install 'rundiff[postgresql]'"
        ) from None

    def connect() -> psycopg.Connection[Any]:
        given = {"connect_timeout": "10", **address.conninfo}
        connection: psycopg.Connection[Any] = driver().connect(**given, prepare_threshold=None)
        return connection

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes.update(schema=address.schema, version_table=_VERSION_TABLE)
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            # Another process may be doing the same: it is done when the lock is free.
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA_VERSION)
    except (DBAPIError, driver().Error) as error:
        why = " ".join(str(getattr(error, "orig", error)).split())
        raise StorageError(
            f"the tables in {address.place} can't be made ({why}); nothing was changed. The role needs the right "
            "to create tables in the schema"
        ) from error
    finally:
        engine.dispose()
