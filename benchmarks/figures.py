"""Medians of what was measured, and the bars of the design held against them. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import Phase, Snapshot
from benchmarks.contest import Entry
from benchmarks.measure import Measurement

__all__ = ["Bar", "Figures", "Start", "bars", "figures", "find", "wall"]

_GIB = 2**30
_KEY_BYTES = 8
"""The key of all shapes is one 64-bit integer."""


@dataclass(frozen=True, slots=True)
class Start:
    """How long a small command takes as a whole process."""

    title: str
    measured: Sequence[Measurement]
    bar: float | None = None
    """Seconds that the design allows."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of the runs of one entry."""

    wall: float
    """Seconds of the whole process, without what is not counted."""
    least: float
    most: float
    work: float
    """Seconds of the work alone: without the start of Python and imports."""
    cpu: float
    peak_rss: float
    peak_anonymous: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One requirement, what was measured of it, and whether it holds."""

    what: str
    required: str
    measured: str
    holds: bool


def wall(measured: Measurement) -> float:
    """Give the wall clock of a process without the parts that are no work, as the start of a server."""
    return measured.wall - float(measured.answer.get("not_counted", 0.0))


def figures(measured: Sequence[Measurement]) -> Figures:
    """Take the medians of one or more runs."""

    def middle(take: Callable[[Measurement], float]) -> float:
        return float(median(take(each) for each in measured))

    walls = [wall(each) for each in measured]
    return Figures(
        wall=median(walls),
        least=min(walls),
        most=max(walls),
        work=middle(lambda each: float(each.answer.get("seconds", each.wall))),
        cpu=middle(lambda each: each.cpu),
        peak_rss=middle(lambda each: each.peak_rss),
        peak_anonymous=middle(lambda each: each.peak_anonymous),
    )


def find(entries: Sequence[Entry], phase: Phase, snapshot: Snapshot, name: str) -> Figures | None:
    """Find the figures of a contestant in one case, or None."""
    for entry in entries:
        if (entry.phase, entry.snapshot, entry.contestant.name) == (phase, snapshot, name) and entry.measured:
            return figures(entry.measured)
    return None


def bars(entries: Sequence[Entry], starts: Sequence[Start]) -> list[Bar]:
    """Hold the design's bars against what was measured; those that were not measured are left out.

    Rundiff counts with its whole process, others with their work alone: a bar that holds so does not
    depend on how long a peer takes to import.
    """
    found = _signing(entries)
    cases = {entry.snapshot for entry in entries if entry.phase == "second"}
    for snapshot in sorted(cases, key=lambda case: case.rows):
        if (snapshot.shape, snapshot.rate) == ("middle", 1) and snapshot.rows >= 1_000_000:
            found += _second_run(entries, snapshot)
    return [*found, *_state(entries), *_store(entries), *_growth(entries), *_starts(starts)]


def _signing(entries: Sequence[Entry]) -> list[Bar]:
    found = []
    for snapshot in dict.fromkeys(entry.snapshot for entry in entries if entry.phase == "limit"):
        signing = find(entries, "limit", snapshot, "limit-sign-native")
        hashing = find(entries, "limit", snapshot, "limit-sha256")
        if snapshot.shape == "middle" and signing and hashing:
            share = hashing.work / signing.work
            what = f"signing, of the SHA-256 limit of the same bytes ({snapshot.rows:,} rows)"
            found.append(Bar(what, "≥ 50 %", f"{share:.0%}", share >= 0.5))
    return found


def _second_run(entries: Sequence[Entry], snapshot: Snapshot) -> list[Bar]:
    found = []
    rundiff = find(entries, "second", snapshot, "rundiff")
    delivering = find(entries, "second", snapshot, "rundiff-duckdb")
    join = find(entries, "second", snapshot, "duckdb-join")
    merge = find(entries, "second", snapshot, "dlt")
    if rundiff and join:
        ratio = join.work / rundiff.wall
        what = f"second run, {snapshot.title}: DuckDB's full outer join"
        found.append(Bar(what, "faster", f"{ratio:.2f} times as fast", ratio > 1))
    if delivering and merge:
        ratio = merge.work / delivering.wall
        what = f"second run into DuckDB, {snapshot.title}: dlt's merge"
        found.append(Bar(what, "5 times as fast", f"{ratio:.1f} times as fast", ratio >= 5))
    if rundiff:
        what = f"memory beyond the mapped baseline, {snapshot.title}"
        held = rundiff.peak_anonymous
        found.append(Bar(what, "≤ 1 GiB", f"{held / _GIB:.2f} GiB", held <= _GIB))
    return found


def _state(entries: Sequence[Entry]) -> list[Bar]:
    found = []
    for entry in entries:
        if entry.phase == "first" and entry.contestant.name == "rundiff" and entry.state_bytes is not None:
            held = entry.state_bytes - _KEY_BYTES
            what = f"baseline, bytes a record beside the key ({entry.snapshot.shape}, {entry.snapshot.rows:,} rows)"
            found.append(Bar(what, "≤ 80", f"{held:.1f}", held <= 80))
    return found


def _store(entries: Sequence[Entry]) -> list[Bar]:
    """Hold the signature store on Valkey against its bars, and against the original design per record."""
    found = []
    for entry in entries:
        if not entry.contestant.name.startswith("rundiff-redis") or not entry.measured:
            continue
        slow = max(int(each.answer["figures"]["commands_over_10_ms"]) for each in entry.measured)
        what = (
            f"{entry.contestant.title}: commands over 10 ms ({entry.phase} run, {entry.snapshot.rows:,} rows)"
        )
        found.append(Bar(what, "none", str(slow), slow == 0))
        if entry.phase == "first" and entry.state_bytes is not None and entry.snapshot.rows == 1_000_000:
            held = entry.state_bytes
            found.append(Bar("bytes a record on Valkey", "≤ 100", f"{held:.1f}", held <= 100))
    for entry in entries:
        ours = find(entries, entry.phase, entry.snapshot, "rundiff-redis-fetch")
        if entry.contestant.name != "redis" or not entry.measured or ours is None:
            continue
        ratio = figures(entry.measured).work / ours.work
        what = f"{entry.phase} run on Valkey, {entry.snapshot.title}: the original design per record"
        found.append(Bar(what, "10 times as fast", f"{ratio:.1f} times as fast", ratio >= 10))
        mine = _state_bytes(entries, "rundiff-redis-fetch")
        if entry.phase == "second" and entry.state_bytes is not None and mine is not None:
            share = mine / entry.state_bytes
            what = "bytes a record on Valkey, of those of the original design"
            found.append(Bar(what, "≤ 33 %", f"{share:.0%}", share <= 1 / 3))
    return found


def _state_bytes(entries: Sequence[Entry], name: str) -> float | None:
    each = (entry.state_bytes for entry in entries if entry.contestant.name == name)
    return next((held for held in each if held is not None), None)


def _growth(entries: Sequence[Entry]) -> list[Bar]:
    each = {}
    for entry in entries:
        at_rate = entry.phase == "second" and entry.snapshot.shape == "middle" and entry.snapshot.rate == 1
        if at_rate and entry.contestant.name == "rundiff" and entry.measured:
            each[entry.snapshot.rows] = figures(entry.measured).wall / entry.snapshot.rows
    if not {5_000_000, 50_000_000} <= each.keys():
        return []
    growth = each[50_000_000] / each[5_000_000]
    return [
        Bar(
            "time per record at 50 million, of that at 5 million",
            "≤ 1.3 times",
            f"{growth:.2f} times",
            growth <= 1.3,
        )
    ]


def _starts(starts: Sequence[Start]) -> list[Bar]:
    found = []
    for start in starts:
        if start.bar is not None:
            taken = figures(start.measured).wall
            found.append(Bar(start.title, f"≤ {start.bar} s", f"{taken:.2f} s", taken <= start.bar))
    return found
