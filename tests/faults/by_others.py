"""Scenarios with tables that others write to: taking one over, and repairing one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.faults.scenarios import (
    FIRST,
    SCENARIOS,
    SECOND,
    Rows,
    Scenario,
    Trouble,
    a_sync,
    settled,
    sync,
    tried,
    watched,
    watched_table,
)

__all__ = ["ALL"]

TAMPERED: Rows = {**{key: value for key, value in FIRST.items() if key != 5}, 3: "x"}


def tamper(place: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(place / "d.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def adopted() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        tamper(place, *(f"INSERT INTO t VALUES ({key}, '{value}')" for key, value in FIRST.items()))

    def adopt(place: Path) -> None:
        tried(place, lambda: a_sync(place, FIRST).adopt())

    def check(place: Path) -> Trouble:
        wrong = watched(place, FIRST)
        counts = sync(place, SECOND).counts
        found = (counts.unchanged, counts.created, counts.updated, counts.deleted)
        if found != (3, 2, 1, 2):
            wrong.append(f"the run after the adoption found {found}")
        return wrong + watched(place, FIRST, SECOND)

    return Scenario(prepare, adopt, adopt, check)


def repaired() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)
        tamper(place, "UPDATE t SET v = 'x' WHERE id = 3", "DELETE FROM t WHERE id = 5")

    def repair(place: Path) -> None:
        a_sync(place, FIRST, batch_size=1).verify(repair=True)

    def check(place: Path) -> Trouble:
        left = a_sync(place, FIRST).verify().differences
        wrong = [f"{left} rows still differ"] if left else []
        return wrong + watched(place, FIRST, TAMPERED, FIRST) + settled(place, FIRST)

    return Scenario(prepare, repair, repair, check)


ALL = {**SCENARIOS, "adopted": adopted(), "repaired": repaired()}
"""All scenarios by name."""
