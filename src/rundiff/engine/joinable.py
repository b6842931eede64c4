"""How a worker joins a run: what it may say of it, and what all workers must agree on."""

from __future__ import annotations

from typing import Any

import msgspec

from rundiff.database.joined import CLOSED, JoinedRun, Roster
from rundiff.errors import ConfigurationError
from rundiff.settings import SyncSettings
from rundiff.signing import SigningKey

__all__ = [
    "IDLE_SECONDS",
    "Joining",
    "agreed_options",
    "check_name",
    "check_run",
    "entered",
    "refuse_one_reader",
    "refuse_other_options",
]

IDLE_SECONDS = 3600.0
"""Without a sign of life for so long, a joined run no longer keeps others from its sync."""
_OWN_TO_THE_SEALER = ("name", "source", "destination", "guards", "batch_size", "wait", "named")
_POLICIES_OF_WORKERS = ("on_conflict", "on_invalid_key", "on_lost_baseline")
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


class Joining(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker joins."""

    run: str
    batches: tuple[str, ...] | None = None
    expected: int | None = None
    worker: str | None = None
    """None: the process and its host."""
    idle_seconds: float = IDLE_SECONDS


def check_run(joining: Joining) -> None:
    """Refuse what a worker says of a run when it joins; raises `ConfigurationError`."""
    check_name("run", joining.run)
    batches = joining.batches
    for batch in batches or ():
        check_name("a batch", batch)
    if batches is not None and len(set(batches)) < len(batches):
        raise ConfigurationError("batches names a batch twice")
    if joining.expected is not None and joining.expected < 1:
        raise ConfigurationError("expected must be a number of batches from 1 on")
    if not 1 <= joining.idle_seconds <= 30 * 86_400:
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


def agreed_options(settings: SyncSettings, signing_key: SigningKey | None) -> dict[str, str]:
    """Give what workers must agree on, by name, as JSON: all that decides what becomes of a record."""
    chosen: dict[str, Any] = {"signing key": None if signing_key is None else signing_key.id}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if name in _OWN_TO_THE_SEALER:
            continue
        if not isinstance(value, msgspec.Struct):
            chosen[name] = value
            continue
        for field in value.__struct_fields__:
            if field != "expected_rows" and (name != "policies" or field in _POLICIES_OF_WORKERS):
                chosen[field] = getattr(value, field)
    return {name: msgspec.json.encode(value, enc_hook=_named).decode() for name, value in chosen.items()}


def refuse_other_options(settings: SyncSettings, signing_key: SigningKey | None, joined: JoinedRun) -> None:
    """Refuse a worker whose options differ from those that a run was begun with; raises `ConfigurationError`."""
    mine, theirs = agreed_options(settings, signing_key), joined.terms.options
    if joined.state == CLOSED:
        return
    for name in sorted({*mine, *theirs}):
        if mine.get(name) != theirs.get(name):
            raise ConfigurationError(
                f"run {joined.name} of sync {settings.name} was begun with another {name} than this worker "
                "has; start all workers with the same options"
            )


def entered(roster: Roster, joining: Joining, sync: str, worker: str) -> Roster:
    """Enter a worker, and the batches that it announces; raises `ConfigurationError` if another announced others."""
    for name, mine, theirs in (
        ("batches", joining.batches and tuple(sorted(joining.batches)), roster.batches),
        ("expected", joining.expected, roster.expected),
    ):
        if mine is not None and theirs is not None and mine != theirs:
            raise ConfigurationError(
                f"run {joining.run} of sync {sync}: another worker announced other {name}; "
                "start all workers with the same, or announce them in one only"
            )
    return Roster(
        batches=roster.batches if joining.batches is None else tuple(sorted(joining.batches)),
        expected=roster.expected if joining.expected is None else joining.expected,
        workers={**roster.workers, worker: False},
    )


def _named(value: Any) -> Any:
    """Functions, which JSON does not know, count as equal by their names."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else repr(value)
