"""A naive model of what a run decides: dictionaries and loops, no Arrow, no signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


def plain(value: Any) -> Any:
    """Bring a value to what its signature says of it: 1 is 1.0 and Decimal("1.00"), but not true."""
    # A fraction as a decimal is not the same fraction as a double (design section 3).
    decimal = isinstance(value, Decimal) and value != value.to_integral_value()
    return (isinstance(value, bool), decimal, value)


def content(row: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """A record's compared data; null is the same as missing."""
    return frozenset((name, plain(value)) for name, value in row.items() if value is not None)


@dataclass
class Outcome:
    """What the model says a run does."""

    deletes: set[Any] = field(default_factory=set)
    updates: set[Any] = field(default_factory=set)
    creates: set[Any] = field(default_factory=set)
    unchanged: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0
    held: int = 0
    complete: bool = True


@dataclass
class Model:
    """The baseline as a dictionary from key to record."""

    key: Sequence[str]
    records: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    invalid_before: int | None = None

    def key_of(self, row: Mapping[str, Any]) -> Any:
        values = [row.get(name) for name in self.key]
        return None if any(value is None for value in values) else tuple(plain(value) for value in values)

    def run(self, rows: Sequence[Mapping[str, Any]], strategy: str = "last") -> Outcome:
        outcome = Outcome()
        groups: dict[Any, list[Mapping[str, Any]]] = {}
        for row in rows:
            key = self.key_of(row)
            if key is None:
                outcome.invalid += 1
            else:
                groups.setdefault(key, []).append(row)
        after = dict(self.records)
        for key, group in groups.items():
            distinct = {content(row) for row in group}
            outcome.duplicates += len(group) - len(distinct)
            outcome.conflicts += len(distinct) > 1
            winner = self._winner(group, strategy) if len(distinct) > 1 else group[-1]
            if key not in self.records:
                outcome.creates.add(key)
            elif content(self.records[key]) == content(winner):
                outcome.unchanged += 1
            else:
                outcome.updates.add(key)
            after[key] = winner
        missing = set(self.records) - set(groups)
        outcome.complete = self.invalid_before is None or outcome.invalid <= self.invalid_before
        if outcome.complete:
            self.invalid_before = outcome.invalid
            if missing and not groups:
                outcome.held = len(missing)
            else:
                outcome.deletes = missing
                for key in missing:
                    del after[key]
        self.records = after
        return outcome

    @staticmethod
    def _winner(group: Sequence[Mapping[str, Any]], strategy: str) -> Mapping[str, Any]:
        if strategy == "last":
            return group[-1]
        if strategy == "first":
            return group[0]
        kind, _, name = strategy.partition(":")

        def rank(row: Mapping[str, Any]) -> tuple[bool, Any]:
            value = row.get(name)
            return ((value is None) == (kind == "min"), 0 if value is None else value)

        best = max(rank(row) for row in group) if kind == "max" else min(rank(row) for row in group)
        return [row for row in group if rank(row) == best][-1]


@dataclass(frozen=True)
class Step:
    """One run of a history with scopes."""

    rows: Sequence[Mapping[str, Any]]
    scope: str = "full"
    named: frozenset[str] | None = None
    """In partition scope: the partitions that are named; None: those that turn up."""
    complete: bool = True
    max_deletes: int | None = None
    max_updates_percent: float | None = None
    max_creates_percent: float | None = None
    partition_guards: Mapping[str, Any] = field(default_factory=dict)
    on_guard: str = "hold_deletes"


@dataclass
class Judged:
    """What the scoped model says a run does."""

    deletes: set[Any] = field(default_factory=set)
    updates: set[Any] = field(default_factory=set)
    creates: set[Any] = field(default_factory=set)
    unchanged: int = 0
    held: int = 0
    refused: bool = False
    """A guard failed the run."""
    whole_run_held: bool = False


@dataclass
class Part:
    """What a run does to one partition of the baseline."""

    records: int
    deletes: int
    absent: int
    updates: int
    creates: int
    read: int

    @classmethod
    def of(
        cls,
        before: Mapping[Any, Mapping[str, Any]],
        after: Mapping[Any, Mapping[str, Any]],
        gone: tuple[set[Any], set[Any]],
        found: tuple[Judged, Mapping[Any, Any]],
        name: str,
    ) -> Part:
        here = {key for key, row in before.items() if row["part"] == name}
        now = {key for key, row in after.items() if row["part"] == name}
        deleted, absent = gone
        judged, winners = found
        return cls(
            records=len(here),
            deletes=len(here & deleted),
            absent=len(here & absent),
            updates=len(here & judged.updates),
            creates=len(now & judged.creates),
            read=len(now & winners.keys()),
        )

    def holds_deletions(self, guards: Mapping[str, Any]) -> bool:
        return any(
            {
                "allow_empty": not limit and self.absent == self.records and not self.read,
                "max_deletes": self.deletes > limit,
                "min_records": self.absent > 0 and self.read < limit,
                "max_delete_percent": self.deletes > 0 and 100 * self.deletes >= limit * self.records,
            }.get(guard, False)
            for guard, limit in guards.items()
        )

    def holds_run(self, guards: Mapping[str, Any]) -> bool:
        return any(
            {
                "max_updates_percent": 100 * self.updates > limit * self.records,
                "max_creates_percent": 100 * self.creates > limit * self.records,
            }.get(guard, False)
            for guard, limit in guards.items()
        )


@dataclass
class ScopedModel:
    """Records by `id`, parted by `part`, perhaps marked by `gone`; with misses and what is held."""

    delete_after: int = 1
    marks: bool = False
    began: bool = False
    records: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    misses: dict[Any, int] = field(default_factory=dict)
    held: set[Any] = field(default_factory=set)
    held_run: tuple[dict[Any, Mapping[str, Any]], dict[Any, int]] | None = None

    def run(self, step: Step) -> Judged:
        outcome = Judged()
        winners = {row["id"]: row for row in step.rows}
        after, misses = dict(self.records), dict(self.misses)
        marked = set()
        for key, row in winners.items():
            misses.pop(key, None)
            if self.marks and row["gone"]:
                marked |= {key} & self.records.keys()
            elif key not in self.records:
                outcome.creates.add(key)
                after[key] = row
            elif self.same(key, row):
                outcome.unchanged += 1
            else:
                outcome.updates.add(key)
                after[key] = row
        judged = self._judged(step)
        missing = judged - winners.keys()
        doubtful = not step.rows and bool(judged)
        due = {key for key in missing if self.misses.get(key, 0) + 1 >= self.delete_after}
        if not doubtful:
            misses.update({key: self.misses.get(key, 0) + 1 for key in missing - due})
        gone = due | marked
        many = step.max_deletes is not None and len(gone) > step.max_deletes
        parts = [
            Part.of(self.records, after, (gone, due), (outcome, winners), name)
            for name in {row["part"] for row in self.records.values()} - {None}
        ]
        many = many or any(part.holds_deletions(step.partition_guards) for part in parts)
        hold = bool(gone) and (many or (doubtful and bool(due)))
        whole = self._too_many(step, outcome) or any(part.holds_run(step.partition_guards) for part in parts)
        if (hold or whole) and step.on_guard == "fail":
            return Judged(refused=True)
        if whole or (hold and step.on_guard == "hold_run"):
            self.held_run = (
                {key: row for key, row in after.items() if key not in gone},
                {key: count for key, count in misses.items() if key not in gone},
            )
            self.held = set()
            outcome.deletes, outcome.whole_run_held = gone, True
            # What would hold the deletions by itself is told as well.
            outcome.held = len(gone) if hold and step.on_guard == "hold_deletes" else 0
            return outcome
        kept = {key for key in self.held if key not in winners and key not in judged}
        if hold:
            outcome.held, kept = len(gone), kept | gone
        else:
            outcome.deletes = gone
            for key in gone:
                del after[key]
                misses.pop(key, None)
        everything = step.complete and step.scope == "full" and self.began
        self.held = (gone if hold else set()) if everything else kept
        self.held_run, self.records, self.misses, self.began = None, after, misses, True
        return outcome

    def same(self, key: Any, row: Mapping[str, Any]) -> bool:
        """Say whether a record is the same as what the baseline holds of its key."""
        return content(self.records[key]) == content(row)

    def _too_many(self, step: Step, found: Judged) -> bool:
        """Say whether a guard on updates or creates holds the whole run."""
        covered = len(self.records if step.scope == "incremental" else self._covered(step))
        limits = ((found.updates, step.max_updates_percent), (found.creates, step.max_creates_percent))
        return any(
            covered > 0 and limit is not None and 100 * len(keys) / covered > limit for keys, limit in limits
        )

    def _judged(self, step: Step) -> set[Any]:
        """Give the keys of which the run can tell whether the source has them."""
        return self._covered(step) if step.complete and step.scope != "incremental" else set()

    def _covered(self, step: Step) -> set[Any]:
        if step.scope == "full":
            return set(self.records)
        covered = {row["part"] for row in step.rows} if step.named is None else set(step.named)
        return {key for key, row in self.records.items() if row["part"] in covered - {None}}

    def approve(self) -> set[Any]:
        """Delete what is held, or take the held run; gives the deleted keys."""
        if self.held_run is not None:
            before, (self.records, self.misses) = self.records, self.held_run
            self.held_run = None
            return before.keys() - self.records.keys()
        gone, self.held = self.held, set()
        for key in gone:
            del self.records[key]
            self.misses.pop(key, None)
        return gone

    def discard(self) -> None:
        """Drop what is held."""
        self.held_run, self.held = None, set()
