"""Guards: limits that hold a run's deletions, or the whole run, until a person approves."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rundiff.compare.parts import DEFAULT_DELETE_PERCENT, DEFAULT_FROM_RECORDS, Breach
from rundiff.settings import Guards

__all__ = [
    "Figures",
    "Part",
    "Verdict",
    "doubt",
    "judge",
    "median",
]

_OF_DELETIONS = ("vanished", "min_records", "max_deletes", "max_delete_percent")


class Part(msgspec.Struct, frozen=True):
    """A partition that breaks one of its guards, the worst of those that do."""

    name: str
    """For people."""
    records: int
    """Its live keys before the run."""
    breach: Breach

    @property
    def sentence(self) -> str:
        """Say which guard it breaks, and its figures."""
        breach, plural = self.breach, "s" * (self.records != 1)
        whole = f"{self.records:,} record{plural} of the partition {self.name}"
        count, limit = f"{breach.count:,}", f"{breach.limit.value:g}"
        share = f"{_percent(breach.count, self.records):.1f} %"
        of = " of partition_guards" if breach.limit.own else ""
        also = f"; the same holds for {breach.others:,} other partition" if breach.others else ""
        also += "s" * (breach.others > 1)
        match breach.guard:
            case "vanished":
                none = f"none of the {whole} was read"
                only = f"the only record of the partition {self.name} was not read"
                text = f"{only if self.records == 1 else none} (allow_empty{of})"
            case "min_records":
                text = f"{count} records of the partition {self.name} were read, fewer than min_records = {limit}{of}"
            case "max_deletes":
                there = _counted(breach.count, "deletion", f"in the partition {self.name}")
                text = f"{there} more than max_deletes = {limit}{of}"
            case "max_delete_percent":
                there = _counted(breach.count, "deletion")
                text = f"{there} {share} of the {whole}, and max_delete_percent{of} is {limit}"
            case guard:
                there = _counted(breach.count, "update" if guard == "max_updates_percent" else "create")
                text = f"{there} {share} of the {whole}, more than {guard} = {limit}{of}"
        return text + also


class Figures(msgspec.Struct, frozen=True, kw_only=True):
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
    """The partitions that break a guard, one for each guard that is broken."""


class Verdict(msgspec.Struct, frozen=True):
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


def _counted(number: int, noun: str, rest: str = "") -> str:
    """Begin a sentence: 1 deletion is, 2 deletions in the partition EU are."""
    return f"{number:,} {noun}{'s' * (number != 1)}{' ' * bool(rest)}{rest} {'is' if number == 1 else 'are'}"


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
        return f"{_counted(deletes, 'deletion')} more than max_deletes = {guards.max_deletes:,}"
    explicit, empty = guards.max_delete_percent, figures.read == 0 and guards.allow_empty
    limit = DEFAULT_DELETE_PERCENT if explicit is None else explicit
    judged = explicit is not None or (figures.baseline >= DEFAULT_FROM_RECORDS and not empty)
    share = _percent(deletes, figures.baseline)
    if judged and limit < 100 and share >= limit:
        return (
            f"{_counted(deletes, 'deletion')} {share:.1f} % of the {figures.baseline:,} records, "
            f"and max_delete_percent is {limit:g}"
        )
    return _first_part(figures, *_OF_DELETIONS)


def _first_part(figures: Figures, *guards: str) -> str | None:
    return next((part.sentence for part in figures.parts if part.breach.guard in guards), None)


def _run(figures: Figures, guards: Guards) -> str | None:
    for limit, what in ((guards.max_updates_percent, "updates"), (guards.max_creates_percent, "creates")):
        count = getattr(figures, what)
        share = _percent(count, figures.baseline)
        if limit is not None and share > limit:
            return (
                f"{_counted(count, what[:-1])} {share:.1f} % of the {figures.baseline:,} records, "
                f"more than max_{what}_percent = {limit:g}"
            )
        if (reason := _first_part(figures, f"max_{what}_percent")) is not None:
            return reason
    return None
