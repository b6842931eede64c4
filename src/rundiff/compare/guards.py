"""Guards: limits that hold a run's deletions, or the whole run, until a person approves."""

from __future__ import annotations

from dataclasses import dataclass

from rundiff.settings import Guards

__all__ = ["DEFAULT_DELETE_PERCENT", "DEFAULT_FROM_RECORDS", "Figures", "Verdict", "judge"]

DEFAULT_DELETE_PERCENT = 10.0
DEFAULT_FROM_RECORDS = 100


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why deletions or the whole run are held; None where they are not."""

    hold_deletions: str | None = None
    hold_run: str | None = None


def judge(figures: Figures, guards: Guards) -> Verdict:
    """Judge a run. Percentages are of the baseline; a limit of 100 % or more never holds."""
    return Verdict(_deletions(figures, guards), _run(figures, guards))


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _deletions(figures: Figures, guards: Guards) -> str | None:
    deletes, baseline = figures.deletes, figures.baseline
    if deletes == 0:
        return None
    if figures.read == 0 and not guards.allow_empty:
        return f"the extract is empty, but the baseline holds {baseline:,} records (allow_empty)"
    if guards.min_records is not None and figures.read < guards.min_records:
        return f"{figures.read:,} records were read, fewer than min_records = {guards.min_records:,}"
    if guards.max_deletes is not None and deletes > guards.max_deletes:
        return f"{deletes:,} deletions are more than max_deletes = {guards.max_deletes:,}"
    limit = guards.max_delete_percent
    if limit is None:
        if baseline < DEFAULT_FROM_RECORDS or (figures.read == 0 and guards.allow_empty):
            return None
        limit = DEFAULT_DELETE_PERCENT
    share = _percent(deletes, baseline)
    if limit < 100 and share >= limit:
        return (
            f"{deletes:,} deletions are {share:.1f} % of the {baseline:,} records, "
            f"and max_delete_percent is {limit:g}"
        )
    return None


def _run(figures: Figures, guards: Guards) -> str | None:
    if figures.baseline == 0:
        return None
    for count, limit, what, option in (
        (figures.updates, guards.max_updates_percent, "updates", "max_updates_percent"),
        (figures.creates, guards.max_creates_percent, "creates", "max_creates_percent"),
    ):
        share = _percent(count, figures.baseline)
        if limit is not None and count and share > limit:
            return (
                f"{count:,} {what} are {share:.1f} % of the {figures.baseline:,} records, "
                f"more than {option} = {limit:g}"
            )
    return None
