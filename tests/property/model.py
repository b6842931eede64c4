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
