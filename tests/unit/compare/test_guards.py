"""Guards: each limit holds exactly from where it says."""

from __future__ import annotations

import pytest

from rundiff.compare.guards import Figures, judge
from rundiff.settings import Guards


def figures(**values: int) -> Figures:
    return Figures(**{"baseline": 100, "read": 100, "creates": 0, "updates": 0, "deletes": 0, **values})


@pytest.mark.parametrize(
    ("found", "guards", "held"),
    [
        (figures(deletes=9), Guards(), False),
        (figures(deletes=10), Guards(), True),
        (figures(baseline=99, deletes=98, read=1), Guards(), False),
        (figures(baseline=99, deletes=99, read=0), Guards(), True),
        (figures(deletes=100, read=0), Guards(allow_empty=True), False),
        (figures(deletes=100, read=0), Guards(allow_empty=True, max_deletes=50), True),
        (figures(deletes=3), Guards(max_deletes=3), False),
        (figures(deletes=4), Guards(max_deletes=3), True),
        (figures(deletes=19), Guards(max_delete_percent=20), False),
        (figures(deletes=20), Guards(max_delete_percent=20), True),
        (figures(baseline=10, deletes=2), Guards(max_delete_percent=20), True),
        (figures(deletes=99, read=1), Guards(max_delete_percent=100), False),
        (figures(deletes=1, read=5), Guards(min_records=6), True),
        (figures(deletes=1, read=6), Guards(min_records=6), False),
        (figures(deletes=0, read=0), Guards(min_records=6), False),
    ],
)
def test_deletions_are_held(found: Figures, guards: Guards, held: bool) -> None:
    verdict = judge(found, guards)
    assert (verdict.hold_deletions is not None, verdict.hold_run) == (held, None)


@pytest.mark.parametrize(
    ("found", "guards", "held"),
    [
        (figures(updates=100), Guards(), False),
        (figures(updates=50), Guards(max_updates_percent=50), False),
        (figures(updates=51), Guards(max_updates_percent=50), True),
        (figures(creates=6), Guards(max_creates_percent=5), True),
        (figures(creates=5), Guards(max_creates_percent=5), False),
        (figures(baseline=0, creates=5), Guards(max_creates_percent=5), False),
    ],
)
def test_the_whole_run_is_held(found: Figures, guards: Guards, held: bool) -> None:
    verdict = judge(found, guards)
    assert (verdict.hold_run is not None, verdict.hold_deletions) == (held, None)


def test_a_held_run_names_the_guard_and_its_figures() -> None:
    reason = judge(figures(deletes=10), Guards()).hold_deletions
    assert reason == "10 deletions are 10.0 % of the 100 records, and max_delete_percent is 10"
