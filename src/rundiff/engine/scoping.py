"""Which part of the source a run reads: its scope, its partitions, its cursor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from rundiff.baseline.manifest import Cursor, Memory
from rundiff.database.contract import Failure
from rundiff.engine.partitions import combinations
from rundiff.errors import ConfigurationError, PolicyViolation
from rundiff.model import BaselineState, Scope
from rundiff.options import parse_duration
from rundiff.settings import Scoping, SyncSettings

__all__ = ["RECENT", "Reach", "cursor_after", "cursor_value", "reach_of", "reads_beyond"]

RECENT = 7
"""Complete full runs whose numbers of records make the usual one."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked to read."""

    scope: Scope
    partition_by: tuple[str, ...] = ()
    """The fields that part the records; sorted."""
    named: Sequence[Mapping[str, Any]] = ()
    """The partitions that are covered; none named in partition scope: those that turn up."""

    @property
    def seen(self) -> bool:
        """Whether the partitions that turn up are the covered ones."""
        return self.scope is Scope.PARTITION and not self.named


def reach_of(settings: SyncSettings, memory: Memory, now: datetime) -> Reach:
    """Say what a run reads; raises `ConfigurationError` where the options contradict each other."""
    scoping = settings.scoping
    parted = bool(scoping.partition or scoping.partition_by or scoping.partitions)
    scope = Scope(scoping.scope) if scoping.scope else Scope.PARTITION if parted else Scope.FULL
    if (why := _contradiction(scoping, scope, parted=parted)) is not None:
        raise ConfigurationError(f"sync {settings.name}: {why}")
    fields = tuple(sorted(scoping.partition or scoping.partition_by)) or memory.partition_by
    named = combinations(scoping.partition) if scoping.partition else _parents(settings, fields)
    if scope is not Scope.FULL and scoping.full_every is not None:
        if not _can_be_asked(settings.source):
            raise ConfigurationError(
                f"sync {settings.name}: full_every needs a source that can be asked for all of its records, a "
                "function or a database; a file or rows hold what they hold. Run with --scope full when it is whole"
            )
        longest = parse_duration(scoping.full_every, "full_every")
        # One that lies ahead was noted by a clock that was wrong: nobody knows how old it is.
        if memory.full_at is None or not timedelta(0) <= now - memory.full_at < longest:
            scope = Scope.FULL
    return Reach(scope=scope, partition_by=fields, named=named if scope is Scope.PARTITION else ())


def _contradiction(scoping: Scoping, scope: Scope, *, parted: bool) -> str | None:
    if scoping.partition and (scoping.partition_by or scoping.partitions):
        return "partition names what is read by value, partition_by by parent; use one of them"
    if scoping.partitions and not scoping.partition_by:
        return "partitions names parents, but partition_by does not say which field holds them"
    if scope is Scope.PARTITION and not parted:
        return "scope = partition needs partition (--partition region=EU) or partition_by (--partition-by account)"
    if scope is not Scope.PARTITION and scoping.partition:
        return f"partition names a part of the source, so the scope can't be {scope}"
    return None


def _parents(settings: SyncSettings, fields: Sequence[str]) -> list[dict[str, Any]]:
    parents = []
    for parent in settings.scoping.partitions:
        values = dict(parent) if isinstance(parent, Mapping) else {fields[0]: parent}
        if sorted(values) != list(fields) or any(value is None for value in values.values()):
            raise ConfigurationError(
                f"sync {settings.name}: each of partitions must give a value of {', '.join(fields)}; "
                f"{parent!r} does not"
            )
        parents.append(values)
    return parents


def reads_beyond(state: BaselineState, scope: Scope, set_aside: Sequence[Failure]) -> bool:
    """Say whether a run of a part needs records from outside of it, too, where the source can give all of them.

    After a lost baseline nothing else tells of them. What was set aside of an incremental run lies before its cursor
    by now, or will, and would not be tried again.
    """
    keyed = any(failure.primary_key_signature is not None for failure in set_aside)
    return state is BaselineState.LOST or (scope is Scope.INCREMENTAL and keyed)


def _can_be_asked(source: Any) -> bool:
    if isinstance(source, str | os.PathLike):
        text = os.fsdecode(source)
        return "://" in text and not text.lower().startswith("file:")
    return callable(source) or hasattr(source, "may_delete_without_count")


def cursor_value(memory: Memory, field: str | None) -> Any:
    """Give the highest value of the cursor field so far, as Python has it; None if there is none."""
    from rundiff.sources.pins import arrow_type_of

    kept = memory.cursor
    if kept is None or kept.field != field:
        return None
    return pa.scalar(kept.value).cast(arrow_type_of(kept.type)).as_py()


def cursor_after(highest: pa.Scalar | None, field: str, before: Cursor | None, scope: Scope) -> Cursor | None:
    """Give the cursor after a reading that reached the end.

    A full reading sets it anew, so that a source that was set back is read from there; others only raise it.
    """
    import pyarrow.compute as pc

    from rundiff.sources.pins import arrow_type_of, pin_of

    mine = before if before is not None and before.field == field else None
    if highest is None or not highest.is_valid:
        return mine
    pin = pin_of(highest.type)
    if pin is None or pa.types.is_nested(highest.type) or isinstance(highest.type, pa.BaseExtensionType):
        raise PolicyViolation(
            f"the cursor {field} holds values of the type {highest.type}, which have no highest; choose a field of "
            "numbers, text or times"
        )
    found = Cursor(field, pin, str(highest.cast(arrow_type_of(pin)).cast(pa.string()).as_py()))
    if mine is None or scope is Scope.FULL or mine.type != found.type:
        return found
    kept = pa.scalar(mine.value).cast(arrow_type_of(pin))
    return found if pc.greater(highest.cast(arrow_type_of(pin)), kept).as_py() else mine
