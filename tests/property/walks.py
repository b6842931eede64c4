"""Long walks through the life of one sync, in which most runs differ a little from the one before.

What Hypothesis makes up shrinks well, but is mostly short, and its runs have little to do with one another, so
that guards of partitions seldom come to hold. These walks are what years of a sync may look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.property.model import Step

__all__ = ["walk"]

PARTS = ("A", "B", "C")
PARTITION_GUARDS: tuple[dict[str, Any], ...] = (
    {"allow_empty": False},
    {"max_deletes": 0},
    {"max_deletes": 1},
    {"min_records": 1},
    {"min_records": 2},
    {"max_delete_percent": 60},
    {"max_updates_percent": 40},
    {"max_creates_percent": 50},
)


def walk(seed: int, steps: int) -> Iterator[Step | str]:
    """Give runs, and between them the words `approve` and `discard`."""
    chance = Random(seed)  # noqa: S311 -- the same walk each time
    rows = {key: _row(chance, key) for key in range(8)}
    for _ in range(steps):
        if chance.random() < 0.15:
            yield chance.choice(["approve", "approve", "discard"])
        rows = {key: row for key, row in rows.items() if chance.random() > 0.15}
        if chance.random() < 0.15:
            lost = chance.choice(PARTS)
            rows = {key: row for key, row in rows.items() if row["part"] != lost}
        for key in range(8):
            if chance.random() < 0.15:
                rows[key] = _row(chance, key)
        yield _step(chance, [] if chance.random() < 0.04 else list(rows.values()))


def _row(chance: Random, key: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": key,
        "part": chance.choice([*PARTS, *PARTS, None]),
        "v": chance.randrange(2),
        "gone": chance.choice([None, False, False, True]),
    }
    return row if chance.random() < 0.7 else {**row, "note": chance.choice([None, "x", "y"])}


def _step(chance: Random, rows: list[dict[str, Any]]) -> Step:
    scope = chance.choice(["full", "full", "full", "partition", "partition", "incremental"])
    named = frozenset(chance.sample(PARTS, chance.randint(1, 3))) if chance.random() < 0.5 else None
    if scope == "partition":
        covered = named or frozenset(chance.sample(PARTS, 2))
        rows = [row for row in rows if row["part"] in covered or chance.random() < 0.1]
    return Step(
        rows=rows,
        scope=scope,
        named=named if scope == "partition" else None,
        complete=chance.random() < 0.9,
        max_deletes=chance.choice([None, None, None, 1]),
        max_updates_percent=chance.choice([None, None, None, 30.0]),
        max_creates_percent=chance.choice([None, None, None, 50.0]),
        partition_guards=chance.choice(PARTITION_GUARDS) if chance.random() < 0.5 else {},
        on_guard=chance.choice(["hold_deletes", "hold_deletes", "hold_run", "fail"]),
    )
