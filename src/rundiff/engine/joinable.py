"""What can't be a run of several workers: names and numbers out of bounds, options that need one reader."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rundiff.errors import ConfigurationError
from rundiff.settings import SyncSettings

__all__ = ["check_name", "check_run", "refuse_one_reader"]

_ONE_READER = (
    "scope",
    "partition",
    "partition_by",
    "partitions",
    "cursor",
    "full_every",
    "sentinel",
    "deleted_when",
)
"""Options that need one process to read the source."""


def check_run(name: str, batches: Sequence[str] | None, expected: int | None, idle_seconds: float) -> None:
    """Refuse what a worker says of a run when it joins; raises `ConfigurationError`."""
    check_name("run", name)
    for batch in batches or ():
        check_name("a batch", batch)
    if batches is not None and len(set(batches)) < len(batches):
        raise ConfigurationError("batches names a batch twice")
    if expected is not None and expected < 1:
        raise ConfigurationError("expected must be a number of batches from 1 on")
    if not 1 <= idle_seconds <= 30 * 86_400:
        raise ConfigurationError("idle_seconds must be a number of seconds from 1 to 2592000")


def check_name(what: str, name: object) -> None:
    """Refuse the name of a run or a batch; raises `ConfigurationError`."""
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 200:
        raise ConfigurationError(f"the name of {what} must be a text of 1 to 200 printable characters")


def refuse_one_reader(settings: SyncSettings) -> None:
    """Refuse options that need one process to read the source; raises `ConfigurationError`."""
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if not isinstance(value, msgspec.Struct):
            continue
        unset = type(value)()
        for field in value.__struct_fields__:
            if field in _ONE_READER and getattr(value, field) != getattr(unset, field):
                raise ConfigurationError(
                    f"sync {settings.name}: a run of several workers reads the whole source, and {field} needs one "
                    "process to read it; leave the option out, or use rundiff.sync"
                )
