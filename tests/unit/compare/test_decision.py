"""The decision table, line by line."""

from __future__ import annotations

import numpy as np
import pytest

from rundiff.compare.conflicts import NO_WINNER, QUARANTINED, Candidates, Strategy, parse_strategy, resolve
from rundiff.compare.decision import Decision, decide
from rundiff.compare.seen import PythonSeen
from rundiff.errors import ConfigurationError
from rundiff.model import Match


@pytest.mark.parametrize(
    ("known", "read", "same", "decision"),
    [
        (False, True, False, Decision.NEW),
        (False, True, True, Decision.NEW),
        (True, True, True, Decision.NOTHING),
        (True, True, False, Decision.UPDATE),
        (True, False, True, Decision.DELETE),
        (True, False, False, Decision.DELETE),
        (False, False, False, Decision.NOTHING),
    ],
)
def test_the_table(known: bool, read: bool, same: bool, decision: Decision) -> None:
    assert decide(known=np.array([known]), read=np.array([read]), same=np.array([same])).tolist() == [
        decision
    ]


def candidates(contents: str, *, same: str = "", implied: bool = False) -> Candidates:
    """One key whose candidates have these contents; those in `same` equal the baseline's."""
    n = len(contents)
    return Candidates(
        first=np.array([True] + [False] * (n - 1)),
        content=np.array([ord(c) for c in contents]),
        same=np.array([c in same for c in contents]),
        implied=np.full(n, implied),
        known=np.ones(n, dtype=bool),
        rank=np.array([ord(c) for c in contents]),
        implied_rank=np.full(n, ord("b")),
    )


@pytest.mark.parametrize(
    ("given", "kind", "winner", "conflict", "duplicates"),
    [
        (candidates("a"), "last", 0, False, 0),
        (candidates("aa"), "last", 1, False, 1),
        (candidates("ab"), "last", 1, True, 0),
        (candidates("ab"), "first", 0, True, 0),
        (candidates("aba"), "last", 2, True, 1),
        (candidates("ab"), "quarantine", QUARANTINED, True, 0),
        (candidates("aa"), "quarantine", 1, False, 1),
        (candidates("c", implied=True), "first", NO_WINNER, True, 0),
        (candidates("c", implied=True), "last", 0, True, 0),
        (candidates("cs", same="s", implied=True), "last", 1, True, 1),
        (candidates("acb"), "max", 1, True, 0),
        (candidates("acb"), "min", 0, True, 0),
        (candidates("c", implied=True), "max", 0, True, 0),
        (candidates("a", implied=True), "max", NO_WINNER, True, 0),
        (candidates("a", implied=True), "min", 0, True, 0),
        (candidates("c", implied=True), "min", NO_WINNER, True, 0),
        (candidates("b", implied=True), "max", 0, True, 0),
    ],
)
def test_conflicts(given: Candidates, kind: str, winner: int, conflict: bool, duplicates: int) -> None:
    resolution = resolve(given, Strategy(kind, "f" if kind in ("max", "min") else None))
    assert (resolution.winner.tolist(), resolution.conflict.tolist(), resolution.duplicates) == (
        [winner],
        [conflict],
        duplicates,
    )


@pytest.mark.parametrize("text", ["lst", "max", "max:", "last:x", "", "newest"])
def test_unknown_strategies_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="on_conflict can't be"):
        parse_strategy(text)


def test_seen_keeps_what_may_matter() -> None:
    seen = PythonSeen(4)
    new, same, changed = Match.NEW, Match.SAME, Match.CHANGED
    kept = seen.take(np.array([new, same, same, changed, same], dtype=np.uint8), np.array([-1, 0, 1, 1, 0]))
    # Position 1 was read with other data in the same batch, so both its records take part.
    assert kept.tolist() == [True, False, True, True, False]
    assert seen.dropped_duplicates == 1
    assert seen.take(np.array([same, same], dtype=np.uint8), np.array([1, 0])).tolist() == [True, False]
    assert (seen.dropped_duplicates, seen.read.tolist()) == (2, [True, True, False, False])
