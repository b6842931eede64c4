"""Guards: limits that hold a run's deletions, or the whole run, until a person approves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rundiff.settings import Guards

__all__ = [
    "DEFAULT_DELETE_PERCENT",
    "DEFAULT_FROM_RECORDS",
    "Figures",
    "Part",
    "Verdict",
    "doubt",
    "judge",
    "median",
]

DEFAULT_DELETE_PERCENT = 10.0
DEFAULT_FROM_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """One partition that a partition run changes; what is 0 of the changes is not judged."""

    name: str
    records: int
    """Its live keys before the run."""
    deletes: int = 0
    updates: int = 0
    creates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run found, as far as guards look at it."""

    baseline: int
    """Live keys before the run (of the covered part, in partition scope)."""
    read: int
    """Records with a valid key."""
    creates: int
    updates: int
    deletes: int
    absent: int | None = None
    """How many of the deletions rest on not having been read; None: all of them."""
    usual: int | None = None
    """How many records such runs read, where that is known and judged."""
    parts: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why deletions or the whole run are held; None where they are not."""

    hold_deletions: str | None = None
    hold_run: str | None = None


def judge(figures: Figures, guards: Guards) -> Verdict:
    """Judge a run. Percentages are of the baseline; a limit of 100 % or more never holds.

    With `on_guard = "hold_run"` whatever would hold the deletions holds the whole run.
    """
    deletions, run = _deletions(figures, guards), _run(figures, guards)
    if guards.on_guard == "hold_run":
        return Verdict(None, run or deletions)
    return Verdict(deletions, run)


def median(numbers: Sequence[int]) -> int | None:
    """Give the middle one, the lower of two; None of none."""
    return sorted(numbers)[(len(numbers) - 1) // 2] if numbers else None


def doubt(figures: Figures, guards: Guards) -> str | None:
    """Say why what was read is too little to take a record's absence for a deletion."""
    read, baseline = figures.read, figures.baseline
    if read == 0 and baseline and not guards.allow_empty:
        return f"the extract is empty, but the baseline holds {baseline:,} records (allow_empty)"
    if guards.min_records is not None and read < guards.min_records:
        return f"{read:,} records were read, fewer than min_records = {guards.min_records:,}"
    limit, usual = guards.max_drop_percent, figures.usual
    if limit is not None and usual and (drop := _percent(usual - read, usual)) > limit:
        return (
            f"{read:,} records were read, {drop:.1f} % fewer than the usual {usual:,}, "
            f"and max_drop_percent is {limit:g}"
        )
    return None


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _deletions(figures: Figures, guards: Guards) -> str | None:
    deletes = figures.deletes
    if deletes == 0:
        return None
    absent = deletes if figures.absent is None else figures.absent
    if absent and (reason := doubt(figures, guards)) is not None:
        return reason
    if guards.max_deletes is not None and deletes > guards.max_deletes:
        return f"{deletes:,} deletions are more than max_deletes = {guards.max_deletes:,}"
    explicit, empty = guards.max_delete_percent, figures.read == 0 and guards.allow_empty
    limit = DEFAULT_DELETE_PERCENT if explicit is None else explicit
    if limit >= 100 or (explicit is None and empty):
        return None
    if explicit is not None or figures.baseline >= DEFAULT_FROM_RECORDS:
        share = _percent(deletes, figures.baseline)
        if share >= limit:
            return (
                f"{deletes:,} deletions are {share:.1f} % of the {figures.baseline:,} records, "
                f"and max_delete_percent is {limit:g}"
            )
    for part in figures.parts:
        # A share says little of a small partition: its parent may just have lost its only child.
        share = _percent(part.deletes, part.records)
        if part.deletes and part.records >= DEFAULT_FROM_RECORDS and share >= limit:
            return (
                f"{part.deletes:,} deletions are {share:.1f} % of the {part.records:,} records of the partition "
                f"{part.name}, and max_delete_percent is {limit:g}"
            )
    return None


def _run(figures: Figures, guards: Guards) -> str | None:
    large = [part for part in figures.parts if part.records >= DEFAULT_FROM_RECORDS]
    for limit, what in ((guards.max_updates_percent, "updates"), (guards.max_creates_percent, "creates")):
        if limit is None:
            continue
        whole = (getattr(figures, what), figures.baseline, "records")
        parts = [
            (getattr(part, what), part.records, f"records of the partition {part.name}") for part in large
        ]
        for count, records, of in (whole, *parts):
            share = _percent(count, records)
            if share > limit:
                return (
                    f"{count:,} {what} are {share:.1f} % of the {records:,} {of}, "
                    f"more than max_{what}_percent = {limit:g}"
                )
    return None
