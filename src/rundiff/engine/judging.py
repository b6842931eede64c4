"""Between finding and sealing: what a run covered, and what the baseline keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
import numpy as np

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Memory
from rundiff.engine.compared import compared_fields
from rundiff.engine.comparing import Comparing, Parting
from rundiff.engine.conditions import parse_condition
from rundiff.engine.forming import preparation_of
from rundiff.engine.partitions import baseline_partitions, named_partitions
from rundiff.engine.previous import PreviousRecords
from rundiff.engine.reading import SAMPLES, Read, key_texts
from rundiff.engine.records import values
from rundiff.engine.scoping import RECENT, Reach, cursor_after
from rundiff.engine.watching import Watch
from rundiff.errors import ConfigurationError
from rundiff.model import Scope
from rundiff.options import parse_duration
from rundiff.settings import SyncSettings
from rundiff.signing import SigningKey

__all__ = [
    "Course",
    "memory_after",
    "parting_of",
    "pending_samples",
    "reach_with_fields",
    "watch_of",
]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What a run set out to do."""

    settings: SyncSettings
    reach: Reach
    memory: Memory
    """What the baseline kept of earlier runs."""
    began: datetime

    @property
    def approvable(self) -> timedelta:
        """How long what a guard holds can be approved."""
        return parse_duration(self.settings.guards.approval_expires, "approval_expires")


def reach_with_fields(settings: SyncSettings, reach: Reach) -> Reach:
    """Check the partition fields: a record that moves must differ, or it would stay where it was.

    Fields that only an earlier run asked for are given up where they are no more compared.
    """
    fields = reach.partition_by
    compared = compared_fields(fields, settings.comparison, settings.primary_key)
    form = preparation_of(settings)
    left = [name for name in fields if name not in compared or form.touches(name)]
    if not left:
        return reach
    if settings.scoping.partition or settings.scoping.partition_by:
        raise ConfigurationError(
            f"sync {settings.name}: the field {left[0]} parts the records, but exclude, include or normalize leaves "
            "it, or a part of it, out of the comparison, so that a record that moves to another partition would go "
            "unnoticed; compare it as it is"
        )
    return Reach(scope=reach.scope)


def watch_of(settings: SyncSettings, reach: Reach) -> Watch | None:
    """Say what a reading looks for beside changes; None for nothing."""
    text = settings.policies.deleted_when
    sentinel = settings.guards.sentinel if reach.scope is Scope.FULL else None
    watch = Watch(
        deleted_when=None if text is None else parse_condition(text),
        sentinel=sentinel or None,
        cursor=settings.scoping.cursor,
        partition_by=reach.partition_by if reach.seen else (),
    )
    return watch if watch else None


def parting_of(
    course: Course,
    baseline: Baseline,
    known: tuple[Read, PreviousRecords],
    key: SigningKey | None,
    *,
    rekeyed: bool = False,
    retypes: Mapping[str, str],
) -> Parting | None:
    """Say how the records are parted, and which partitions the reading covered.

    `rekeyed`: the baseline's partitions were signed under another key; `retypes` are the types of now of fields that
    had other ones.
    """
    read, previous = known
    reach, manifest = course.reach, baseline.manifest
    fields = reach.partition_by
    if not fields:
        return None
    partitions = None
    anew = (
        rekeyed or course.memory.partition_by != reach.partition_by or not retypes.keys().isdisjoint(fields)
    )
    if manifest is not None and anew:
        partitions = baseline_partitions(baseline, fields, previous, key, retypes)
    elif reach.scope is Scope.PARTITION:
        partitions = baseline.partitions()
    covered = None
    if reach.seen:
        covered = read.watched.all_partitions
    elif reach.named:
        pins = {**({} if manifest is None else manifest.pins), **read.pins}
        unknown = [n for n in reach.partition_by if n not in pins and n not in read.fields]
        if unknown and read.fields:
            raise ConfigurationError(
                f"sync {course.settings.name}: the source has no field {unknown[0]}, which partition names; it has "
                f"{', '.join(list(read.fields)[:20])}"
            )
        covered = named_partitions(reach.named, pins, key)
    return Parting(fields=fields, signing_key=key, partitions=partitions, covered=covered, anew=anew)


def pending_samples(work: Comparing, *, count: bool) -> tuple[str, ...]:
    """Name the first few keys that this run missed but that are not deleted yet."""
    absent = work.absent
    if not count or len(absent.pending) == 0:
        return ()
    # `take` sorts by signature, so one by one: a few only.
    after = work.policies.delete_after_misses
    sentences = []
    for position, misses in zip(
        absent.pending[:SAMPLES].tolist(), absent.misses[:SAMPLES].tolist(), strict=True
    ):
        key = work.baseline.take(np.array([position])).column("primary_key").combine_chunks()
        text = key_texts(values(key))[0]
        sentences.append(f"key {text}: missed by {misses} of the {after} runs that delete it")
    return tuple(sentences)


def memory_after(course: Course, read: Read, *, complete: bool, pending: int, doubtful: bool) -> Memory:
    """Say what the baseline keeps of this run and those before it."""
    before, settings, reach = course.memory, course.settings, course.reach
    whole = complete and reach.scope is Scope.FULL
    cursor, field = before.cursor, settings.scoping.cursor
    expected = settings.reading.expected_rows
    ended = not read.unreadable and not read.end.incomplete and expected in (None, read.records)
    if field is not None and ended:
        # Records that could not be read would lie before a higher value, and never be asked for again.
        cursor = cursor_after(read.watched.highest, field, cursor, reach.scope)
    return Memory(
        partition_by=reach.partition_by,
        cursor=cursor,
        pending=pending,
        full_at=course.began if whole else before.full_at,
        recent=(*before.recent, read.records)[-RECENT:] if whole and not doubtful else before.recent,
    )
