"""Guards of single partitions: which of them hold, and which partition is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rundiff.compare.guards import Figures, Part, judge
from rundiff.compare.parts import Changed, PartLimits, breaches
from rundiff.settings import Guards

KINDS = ("records", "deletes", "absent", "updates", "creates", "read")


def changed(*parts: dict[str, int]) -> Changed:
    columns = {kind: np.array([part.get(kind, 0) for part in parts], dtype=np.int64) for kind in KINDS}
    return Changed(names=np.arange(len(parts), dtype=np.uint64), **columns)


def reasons(guards: Guards, *parts: dict[str, int]) -> list[str | None]:
    """Judge a run of 100,000 records, none of whose whole shares holds."""
    found = breaches(changed(*parts), PartLimits(guards))
    named = [Part(f"p={breach.place}", parts[breach.place]["records"], breach) for breach in found]
    figures = Figures(baseline=100_000, read=99_000, creates=1, updates=1, deletes=1, parts=named)
    verdict = judge(figures, guards)
    return [verdict.hold_deletions, verdict.hold_run]


def lost(records: int, deletes: int, **more: int) -> dict[str, int]:
    return {"records": records, "deletes": deletes, "absent": deletes, "read": records - deletes, **more}


@pytest.mark.parametrize(
    ("guards", "part", "reason"),
    [
        ({}, lost(100, 9), None),
        (
            {},
            lost(100, 10),
            "10 deletions are 10.0 % of the 100 records of the partition p=0, and max_delete_percent is 10",
        ),
        ({}, lost(99, 98), None),
        ({}, lost(99, 99), None),
        ({}, lost(100, 100), "none of the 100 records of the partition p=0 was read (allow_empty)"),
        # All of its keys are others now.
        ({"max_delete_percent": 100}, lost(100, 100, read=5), None),
        ({"max_delete_percent": 100}, lost(100, 100), "none of the 100 records of the partition p=0"),
        ({"max_delete_percent": 100, "allow_empty": True}, lost(100, 100), None),
        # Marked as deleted by the source, which was read.
        ({"max_delete_percent": 100}, lost(100, 100, absent=0), None),
        ({"partition_guards": {"allow_empty": True}}, lost(100, 100), "100 deletions are 100.0 %"),
        ({"partition_guards": {"allow_empty": True, "max_delete_percent": 100}}, lost(100, 100), None),
        (
            {"partition_guards": {"allow_empty": False}},
            lost(1, 1),
            "the only record of the partition p=0",
        ),
        ({"partition_guards": {"max_delete_percent": 60}}, lost(5, 2), None),
        ({"partition_guards": {"max_delete_percent": 60}}, lost(200, 100), None),
        (
            {"partition_guards": {"max_delete_percent": 60}},
            lost(5, 3),
            "3 deletions are 60.0 % of the 5 records of the partition p=0, and max_delete_percent of part",
        ),
        ({"max_deletes": 5}, lost(1000, 6), None),
        ({"partition_guards": {"max_deletes": 5}}, lost(1000, 5), None),
        (
            {"partition_guards": {"max_deletes": "5"}},
            lost(1000, 6),
            "6 deletions in the partition p=0 are more than max_deletes = 5 of partition_guards",
        ),
        ({"partition_guards": {"min_records": 3}}, lost(4, 1), None),
        ({"partition_guards": {"min_records": 3}}, lost(4, 1, read=2, absent=0), None),
        (
            {"partition_guards": {"min_records": 3}},
            lost(4, 2),
            "2 records of the partition p=0 were read, fewer than min_records = 3 of partition_guards",
        ),
    ],
)
def test_deletions_of_a_partition_are_held(
    guards: dict[str, Any], part: dict[str, int], reason: str | None
) -> None:
    held, run = reasons(Guards(**guards), part)
    assert run is None
    assert held is None if reason is None else (held or "").startswith(reason)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (
            {"records": 100, "updates": 51},
            "51 updates are 51.0 % of the 100 records of the partition p=0, more than max_updates_percent = 50",
        ),
        (
            {"records": 200, "creates": 50},
            "50 creates are 25.0 % of the 200 records of the partition p=0, more than max_creates_percent = 20",
        ),
        ({"records": 100, "updates": 50}, None),
        ({"records": 200, "creates": 40}, None),
        ({"records": 99, "updates": 99, "creates": 99}, None),
        ({"records": 0, "creates": 200}, None),
    ],
)
def test_updates_and_creates_of_a_partition_hold_the_run(part: dict[str, int], reason: str | None) -> None:
    assert reasons(Guards(max_updates_percent=50, max_creates_percent=20), part) == [None, reason]
    assert reasons(Guards(), part) == [None, None]
    own = Guards(partition_guards={"max_updates_percent": 100, "max_creates_percent": 100})
    assert reasons(own, part) == [None, None]


def test_the_worst_is_named_and_the_others_are_counted() -> None:
    held, _ = reasons(Guards(), lost(100, 20), lost(100, 40), lost(50, 49), lost(1000, 100))
    assert held == (
        "40 deletions are 40.0 % of the 100 records of the partition p=1, and max_delete_percent is 10; "
        "the same holds for 2 other partitions"
    )
    held, _ = reasons(Guards(), lost(100, 100), lost(120, 120), lost(1000, 400))
    assert held == (
        "none of the 120 records of the partition p=1 was read (allow_empty); "
        "the same holds for 1 other partition"
    )


def test_an_empty_extract_that_is_allowed_holds_no_partition() -> None:
    empty = PartLimits(Guards(allow_empty=True), empty=True)
    assert breaches(changed(lost(100, 100)), empty) == []
    explicit = PartLimits(Guards(allow_empty=True, max_delete_percent=50), empty=True)
    assert [breach.guard for breach in breaches(changed(lost(100, 100)), explicit)] == ["max_delete_percent"]
