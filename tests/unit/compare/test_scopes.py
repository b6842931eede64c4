"""Coverage and grace: pure arrays in, pure arrays out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from rundiff.compare.scopes import among, counts_of, judge_misses, tally, tally_together

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12)


def matrix(rows: list[tuple[int, int]]) -> npt.NDArray[np.uint64]:
    return np.array(rows, dtype=">u8").reshape(-1, 2)


@given(partitions=pairs, covered=pairs)
def test_coverage_is_membership_and_the_unknown_is_never_covered(
    partitions: list[tuple[int, int]], covered: list[tuple[int, int]]
) -> None:
    wanted = [pair in covered and pair != (0, 0) for pair in partitions]
    assert among(matrix(partitions), matrix(covered)).tolist() == wanted


def test_changes_are_counted_by_partition() -> None:
    changed = tally(matrix([(1, 1), (0, 0), (2, 2), (2, 2), (9, 9), (0, 7)]))
    assert (changed.names.tolist(), changed.counts.tolist()) == ([0, 1, 2, 9], [1, 1, 2, 1])
    both = tally_together([changed, tally(matrix([(1, 1), (4, 4)])), tally_together([])])
    assert (both.names.tolist(), both.counts.tolist()) == ([0, 1, 2, 4, 9], [1, 2, 2, 1, 1])
    assert counts_of(both, np.array([2, 3, 9], dtype=np.uint64)).tolist() == [2, 0, 1]
    assert counts_of(both, np.array([], dtype=np.uint64)).tolist() == []


def test_misses_count_up_to_the_limit() -> None:
    due, after = judge_misses(np.array([0, 1, 2, 200], dtype=np.uint8), 3)
    assert (due.tolist(), after.tolist()) == ([False, False, True, True], [1, 2, 3, 3])
    due, after = judge_misses(np.array([253, 252], dtype=np.uint8), 254)
    assert (due.tolist(), after.tolist()) == ([True, False], [254, 253])
