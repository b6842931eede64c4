"""Run the contestants in turns on the same files, and refuse wrong answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Counts, Phase, Snapshot
from benchmarks.measure import BenchmarkError, Measurement, run
from benchmarks.peers import Contestant, Work

__all__ = ["Contest", "Entry", "Settings"]

_IMMUTABLE = frozenset({".arrow", ".parquet"})
"""Files that Rundiff writes once and never changes: linked and not copied, so that a copy of many
gigabytes doesn't push the sources out of the page cache."""
_WARMED_AT_ONCE = 4 << 20
"""Bytes."""
_DELIVERED = "changes.parquet"
"""The folder of changes already delivered, which no contestant reads again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure."""

    data: Path
    repeat: int
    first_repeat: int
    timeout: float
    """Seconds for one process."""
    tell: Callable[[str], None]
    """Takes progress for people."""


@dataclass(frozen=True, slots=True)
class Entry:
    """All measurements of one contestant in one phase of one case."""

    phase: Phase
    snapshot: Snapshot
    contestant: Contestant
    measured: Sequence[Measurement]
    """Empty if it failed."""
    state_bytes: float | None = None
    """What it keeps for each record, where known."""
    failure: str | None = None


class Contest:
    """One shape and size: its first runs, then the second runs at each rate."""

    def __init__(self, settings: Settings, contestants: Sequence[Contestant]) -> None:
        self._settings = settings
        self._contestants = contestants
        self._work = settings.data / "work"
        self._state_bytes: dict[str, float] = {}

    def first(self, snapshot: Snapshot, *, measured: bool) -> Iterator[Entry]:
        """Run the first runs, and keep what they leave for the second ones.

        Without `measured` only those that keep state run, once, and nothing is reported.
        """
        shutil.rmtree(self._work, ignore_errors=True)
        self._state_bytes.clear()
        if measured:
            yield from self._rounds("first", snapshot, self._settings.first_repeat)
            return
        for entry in self._rounds("first", snapshot, 1):
            if entry.failure is not None:
                yield entry

    def second(self, snapshot: Snapshot) -> Iterator[Entry]:
        """Run the second runs; needs `first` before."""
        yield from self._rounds("second", snapshot, self._settings.repeat)

    def limits(self, snapshot: Snapshot) -> Iterator[Entry]:
        """Measure what the machine would allow."""
        yield from self._rounds("limit", snapshot, self._settings.repeat)

    def close(self) -> None:
        """Remove what the contestants left."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _rounds(self, phase: Phase, snapshot: Snapshot, repeat: int) -> Iterator[Entry]:
        taking_part = [each for each in self._contestants if self._takes_part(each, phase, snapshot)]
        measured: dict[str, list[Measurement]] = {each.name: [] for each in taking_part}
        failures: dict[str, str] = {}
        for number in range(repeat):
            # Each round begins with another contestant, so that none always follows the same one.
            turn = number % max(1, len(taking_part))
            for each in taking_part[turn:] + taking_part[:turn]:
                if each.name in failures:
                    continue
                try:
                    measured[each.name].append(self._once(each, phase, snapshot, number))
                except BenchmarkError as problem:
                    failures[each.name] = str(problem)
                    self._settings.tell(f"  {each.name} FAILED: {problem}")
        for each in taking_part:
            failure = failures.get(each.name)
            runs = measured[each.name] if failure is None else []
            yield Entry(phase, snapshot, each, runs, self._state_bytes.get(each.name), failure)

    def _takes_part(self, each: Contestant, phase: Phase, snapshot: Snapshot) -> bool:
        if phase not in each.phases or each.only_rows not in (None, snapshot.rows):
            return False
        return phase != "second" or not each.keeps_state or self._prepared(each).exists()

    def _once(self, each: Contestant, phase: Phase, snapshot: Snapshot, number: int) -> Measurement:
        live = self._work / each.name / "live"
        shutil.rmtree(live, ignore_errors=True)
        if phase == "second" and each.keeps_state:
            shutil.copytree(self._prepared(each), live, copy_function=_copy_or_link)
        live.mkdir(parents=True, exist_ok=True)
        os.sync()  # what the last one left to be written must not slow this one down
        command = each.command(Work(phase, snapshot, str(live)))
        _warm(live, [word for word in command if phase != "first" or word != snapshot.new])
        result = run(command, live, self._settings.timeout)
        self._settings.tell(f"  {phase} {number + 1} {each.name}: {result.wall:.2f} s")
        if phase != "limit":
            _verify(each, phase, snapshot, result)
            if number == 0:
                _verify_written(each, phase, snapshot, live)
                self._note_state(each, phase, snapshot, live, result)
        if phase == "first" and each.keeps_state:
            shutil.rmtree(self._prepared(each), ignore_errors=True)
            live.rename(self._prepared(each))
        else:
            shutil.rmtree(live)
        return result

    def _prepared(self, each: Contestant) -> Path:
        return self._work / each.name / "prepared"

    def _note_state(
        self, each: Contestant, phase: Phase, snapshot: Snapshot, live: Path, result: Measurement
    ) -> None:
        stated = result.answer.get("figures", {}).get("state_bytes_per_record")
        if stated is not None:
            self._state_bytes[each.name] = stated
        elif phase == "first" and each.name == "rundiff":
            files = [path for path in (live / "home" / "signatures").rglob("*") if path.is_file()]
            self._state_bytes[each.name] = sum(path.stat().st_size for path in files) / snapshot.rows


def _copy_or_link(source: str, target: str) -> None:
    if Path(source).suffix in _IMMUTABLE:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _warm(live: Path, command: Sequence[str]) -> None:
    """Read what a contestant is about to read, its state and the files that its command names.

    A system may have given up pages of large files meanwhile, and the run would measure the disk.
    """
    state = (path for path in live.rglob("*") if path.is_file() and path.parent.name != _DELIVERED)
    for path in [*state, *(Path(word) for word in command if Path(word).is_file())]:
        with path.open("rb", buffering=0) as file:
            while file.read(_WARMED_AT_ONCE):
                pass


def _verify(each: Contestant, phase: Phase, snapshot: Snapshot, result: Measurement) -> None:
    """Compare the counts that a run states with the truth."""
    answer = result.answer
    expected = Counts(snapshot.rows, 0, 0) if phase == "first" else snapshot.truth
    stated = [answer.get(name) for name in ("created", "updated", "deleted")]
    if all(count is None for count in stated) and each.check in ("table", "itself"):
        return
    if stated != [expected.created, expected.updated, expected.deleted]:
        raise BenchmarkError(
            f"{each.name} found {stated} changes in {snapshot.title}, and the truth is {expected}"
        )


def _verify_written(each: Contestant, phase: Phase, snapshot: Snapshot, live: Path) -> None:
    """Check what a run wrote, in a process of its own."""
    if each.check == "table":
        file, table = each.table
        source = snapshot.old if phase == "first" else snapshot.new
        if _checked("table", str(live / file), table, source) != {"same": True}:
            raise BenchmarkError(f"{each.name} left a table that is not the extract {source}")
    elif each.check == "changes" and phase == "second" and snapshot.truth.total:
        expected = {name: getattr(snapshot.truth, name) for name in ("created", "updated", "deleted")}
        found = _checked("changes", str(live / "changes.parquet" / "run-00000002.parquet"))
        if found != expected:
            raise BenchmarkError(f"{each.name} wrote {found}, and the truth is {expected}")


def _checked(*arguments: str) -> object:
    command = [sys.executable, "-m", "benchmarks.check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode != 0:
        raise BenchmarkError(f"the check could not be made: {done.stderr.strip()[-2_000:]}")
    return json.loads(done.stdout)
