"""Several records with one key in a run: duplicates are dropped, conflicts resolved.

Works on the candidates of a run, sorted by primary key signature, then by the order of reading.
Records that are the same as the baseline's and were met before any other of their key were not kept
as candidates; such a key has an `implied` candidate, which comes first in order.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from rundiff.errors import ConfigurationError

__all__ = ["NO_WINNER", "QUARANTINED", "Candidates", "Resolution", "Strategy", "parse_strategy", "resolve"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_WINNER = -1
"""The implied candidate won: the destination holds that record already."""
QUARANTINED = -2
"""The key was set aside."""


class Strategy(msgspec.Struct, frozen=True):
    """A parsed `on_conflict`."""

    kind: str
    """`last`, `first`, `max`, `min`, `fail`, `quarantine` or `function`."""
    field: str | None = None


def parse_strategy(on_conflict: object) -> Strategy:
    """Read `last`, `first`, `max:FIELD`, `min:FIELD`, `fail`, `quarantine` or a function."""
    if callable(on_conflict):
        return Strategy("function")
    kind, _, field = str(on_conflict).partition(":")
    if kind in ("max", "min") and field:
        return Strategy(kind, field)
    if kind in ("last", "first", "fail", "quarantine") and not field:
        return Strategy(kind)
    raise ConfigurationError(
        f"on_conflict can't be {on_conflict!r}: use last, first, max:FIELD, min:FIELD, fail, quarantine, "
        "or in Python a function"
    )


class Candidates(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates of some keys, sorted by key, then order. All arrays have one row a candidate."""

    first: Flags
    """Marks the first candidate of each key."""
    content: Ints
    """Numbers that are equal exactly where data signatures are equal (within a key)."""
    same: Flags
    """The candidate equals the baseline's record."""
    implied: Flags
    """The candidate's key has an implied candidate."""
    known: Flags
    """The baseline has the candidate's key."""
    rank: Ints | None = None
    """For `max` and `min`: the place of the candidate's FIELD in ascending order, null worst."""
    implied_rank: Ints | None = None
    """For `max` and `min`: the best rank among the key's implied candidates."""


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """One winner for each key; arrays have one row a key, in the candidates' order."""

    start: Ints
    """Each key's first candidate."""
    winner: Ints
    """The winning candidate, `NO_WINNER` or `QUARANTINED`."""
    conflict: Flags
    """The key had candidates with different data."""
    duplicates: int
    """Candidates (implied ones included, one a key) that repeat another of their key."""


def resolve(
    candidates: Candidates,
    strategy: Strategy,
    choose: Callable[[int, int], int] | None = None,
) -> Resolution:
    """Choose a winner for each key.

    Ties go to the last. `fail` is left to the caller, who sees `conflict`. `choose(start, stop)` is
    asked for each conflict under a function strategy and gives the winning candidate's index.
    """
    total = len(candidates.first)
    start = np.flatnonzero(candidates.first)
    stop = np.append(start[1:], total)
    size = stop - start
    winner = stop - 1
    conflict = np.zeros(len(start), dtype=np.bool_)
    implied = candidates.implied[start] if total else np.zeros(0, dtype=np.bool_)
    duplicates = 0

    contested = np.flatnonzero((size > 1) | implied)
    if len(contested) == 0:
        return Resolution(start=start, winner=winner, conflict=conflict, duplicates=0)

    rows = _rows_of(start[contested], size[contested])
    group = np.repeat(np.arange(len(contested)), size[contested])
    distinct = _distinct(group, candidates.content[rows], len(contested))
    has_same = np.zeros(len(contested), dtype=np.bool_)
    np.logical_or.at(has_same, group, candidates.same[rows])
    distinct += implied[contested] & ~has_same
    conflict[contested] = distinct > 1
    duplicates = int((size[contested] + implied[contested] - distinct).sum())

    clash = contested[distinct > 1]
    if strategy.kind == "first":
        winner[clash] = np.where(implied[clash], NO_WINNER, start[clash])
    elif strategy.kind in ("max", "min"):
        _by_rank(candidates, strategy, (start, stop, clash), winner)
    elif strategy.kind == "quarantine":
        winner[clash] = QUARANTINED
    elif strategy.kind == "function" and choose is not None:
        winner[clash] = [choose(int(start[i]), int(stop[i])) for i in clash]
    return Resolution(start=start, winner=winner, conflict=conflict, duplicates=duplicates)


def _by_rank(
    candidates: Candidates, strategy: Strategy, groups: tuple[Ints, Ints, Ints], winner: Ints
) -> None:
    start, stop, clash = groups
    rank, implied_rank = candidates.rank, candidates.implied_rank
    if rank is None or implied_rank is None:
        raise ValueError("ranks are needed to resolve by max or min")
    sign = 1 if strategy.kind == "max" else -1
    rows = _rows_of(start[clash], (stop - start)[clash])
    group = np.repeat(np.arange(len(clash)), (stop - start)[clash])
    # The last of the best: ties go to the later one.
    order = np.lexsort((rows, sign * rank[rows], group))
    ends = np.cumsum((stop - start)[clash]) - 1
    best = rows[order[ends]]
    implied = candidates.implied[start[clash]]
    # The implied candidate came first, so it needs to be strictly better.
    beaten = implied & (sign * implied_rank[start[clash]] > sign * rank[best])
    winner[clash] = np.where(beaten, NO_WINNER, best)


def _rows_of(start: Ints, size: Ints) -> Ints:
    """List the rows of groups that begin at `start`."""
    total = int(size.sum())
    offsets = np.repeat(start - np.concatenate([[0], np.cumsum(size)[:-1]]), size)
    rows: Ints = np.arange(total) + offsets
    return rows


def _distinct(group: Ints, content: Ints, groups: int) -> Ints:
    """Count the different contents in each group."""
    order = np.lexsort((content, group))
    g, c = group[order], content[order]
    new = np.ones(len(g), dtype=np.bool_)
    new[1:] = (g[1:] != g[:-1]) | (c[1:] != c[:-1])
    return np.bincount(g[new], minlength=groups).astype(np.int64)
