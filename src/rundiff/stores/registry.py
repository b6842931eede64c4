"""Find the signature store that a URL names; stores are imported only when they are named."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from rundiff.errors import ConfigurationError, MissingDriver
from rundiff.plugins import entry_points
from rundiff.stores.contract import SignatureStore

__all__ = ["ENTRY_POINTS", "StoreFactory", "open_store"]

ENTRY_POINTS = "rundiff.stores"
"""The group in which packages register `scheme = module:function`; the function is a `StoreFactory`."""

_REDIS = ("rundiff.stores.redis:open_redis", "redis", "redis")
_POSTGRESQL = ("rundiff.stores.postgresql:open_postgresql", "psycopg", "postgresql")
_STORES = {
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
}
"""By scheme: the factory, the driver that it imports, and the extra that brings the driver."""


class StoreFactory(Protocol):
    """What opens a store."""

    def __call__(self, url: str, cache: Path) -> SignatureStore:
        """Open the store of a URL, which may hold secrets; nothing is sent before a method is called.

        `cache` is a local folder, perhaps not there yet, that is the store's own.
        """


def open_store(url: str | None, signatures: Path, cache: Path) -> SignatureStore:
    """Open the signature store of a URL; None is the folder `signatures`, as files.

    `cache` is where stores on servers keep local copies. Raises `ConfigurationError` for unknown
    schemes and `MissingDriver` with the extra to install.
    """
    if url is None:
        from rundiff.stores.files import FileStore

        return FileStore(signatures)
    scheme = url.partition("://")[0].lower()
    if scheme in _STORES:
        path, driver, extra = _STORES[scheme]
        try:
            # Only the driver's own absence is told so: other import errors stay visible.
            import_module(driver)
        except ModuleNotFoundError as error:
            if error.name != driver:
                raise
            raise MissingDriver(
                f"The signature store {scheme}:// needs the package {driver}: pip install 'rundiff[{extra}]'."
            ) from None
        return _factory(path)(url, cache)
    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        loaded: StoreFactory = entry.load()
        return loaded(url, cache)
    known = ["redis", "rediss", "unix", "redis+cluster", "redis+sentinel", "postgresql"]
    others = sorted(entry_points(group=ENTRY_POINTS).names)
    raise ConfigurationError(
        f"There is no signature store {scheme}://: use one of {', '.join(f'{name}://' for name in [*known, *others])}, "
        "or install the package that brings it."
    )


def _factory(path: str) -> StoreFactory:
    module, name = path.split(":")
    factory: StoreFactory = getattr(import_module(module), name)
    return factory
