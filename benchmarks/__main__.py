"""Measure Rundiff beside its peers and write a Markdown table: `python -m benchmarks`.

Run it at the root of the repository, in an environment with Rundiff and the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import RATES, SHAPES, SIZES, Counts, Snapshot
from benchmarks.contest import Contest, Entry, Settings
from benchmarks.figures import Start
from benchmarks.measure import BenchmarkError, run
from benchmarks.peers import CONTESTANTS, Contestant
from benchmarks.report import Heading, markdown

_HERE = Path(__file__).resolve().parent
_GENERATION = "1"
"""Goes into the name of the folder of files: raised when `shapes` or `data` makes other ones."""
_DEFAULT_LEFT_OUT = "redis"
"""Takes minutes a run."""


def main() -> int:
    """Make the files, measure, write the table after each case; 1 if anything failed."""
    given = _arguments()
    contestants = [each for each in CONTESTANTS if each.name in given.peers]
    packages = [package for each in contestants for package in each.packages]
    absent = machine.missing(packages)
    if absent:
        _tell(f"benchmarks: not installed: {', '.join(absent)}; run pip install -e . --group bench")
        return 2
    heading = Heading(
        title=f"Benchmark {given.output}",
        command=" ".join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        began=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        machine=machine.described(),
        versions=machine.versions(packages),
    )
    page = _HERE / "results" / f"{given.output}.md"
    page.parent.mkdir(exist_ok=True)
    _warm_up(given, contestants)
    entries: list[Entry] = []
    starts = _starts(given) if given.start else []
    page.write_text(markdown(heading, entries, starts))
    settings = Settings(
        data=given.data.resolve(),
        repeat=given.repeat,
        first_repeat=given.first_repeat or given.repeat,
        timeout=given.timeout,
        tell=_tell,
    )
    for shape in given.shapes:
        for rows in given.sizes:
            contest = Contest(settings, contestants)
            try:
                for entry in _measured(contest, given, shape, rows):
                    entries.append(entry)
                    page.write_text(markdown(heading, entries, starts))
            finally:
                contest.close()
            if given.discard:
                for file in _folder(given).glob(f"{shape}-{rows}*"):
                    file.unlink()
    _tell(f"written: {page}")
    return 1 if any(entry.failure is not None for entry in entries) else 0


def _measured(contest: Contest, given: argparse.Namespace, shape: str, rows: int) -> Iterator[Entry]:
    """Measure one shape and size in all phases and at all rates."""
    snapshots = [_snapshot(_folder(given), shape, rows, rate) for rate in given.rates]
    _tell(f"{shape}, {rows:,} rows")
    if "limit" in given.phases:
        yield from contest.limits(snapshots[0])
    if {"first", "second"} & set(given.phases):
        yield from contest.first(snapshots[0], measured="first" in given.phases)
    if "second" in given.phases:
        for snapshot in snapshots:
            _tell(f"{snapshot.title}")
            yield from contest.second(snapshot)


def _snapshot(folder: Path, shape: str, rows: int, rate: int) -> Snapshot:
    """Make the files of a case, unless they are there."""
    # A process of its own: this one must stay small (see `measure`).
    command = [sys.executable, "-m", "benchmarks.data", shape, str(rows), str(rate), str(folder)]
    subprocess.run(command, check=True)  # noqa: S603 - our own script
    stem = folder / f"{shape}-{rows}"
    truth = json.loads(Path(f"{stem}-{rate}.json").read_text())
    new_rows = truth.pop("new_rows")
    return Snapshot(shape, rows, rate, f"{stem}.parquet", f"{stem}-{rate}.parquet", new_rows, Counts(**truth))


def _warm_up(given: argparse.Namespace, contestants: Sequence[Contestant]) -> None:
    """Let each contestant run once on 1,000 rows, not counted: Python keeps the compiled modules."""
    _tell("warming up")
    snapshot = _snapshot(_folder(given), "middle", 1_000, 1)
    settings = Settings(
        data=given.data.resolve(), repeat=1, first_repeat=1, timeout=given.timeout, tell=lambda _: None
    )
    contest = Contest(settings, contestants)
    try:
        runs = [*contest.limits(snapshot), *contest.first(snapshot, measured=True), *contest.second(snapshot)]
    finally:
        contest.close()
    for entry in runs:
        if entry.failure is not None:
            raise BenchmarkError(entry.failure)


def _starts(given: argparse.Namespace) -> list[Start]:
    """Measure the start of the command, and a sync of 1,000 rows."""
    _tell("start times")
    repeat = max(5, given.repeat)
    snapshot = _snapshot(_folder(given), "middle", 1_000, 1)
    python = [sys.executable, "-c", "pass"]
    show_help = [sys.executable, "-m", "rundiff", "--help"]
    with tempfile.TemporaryDirectory() as folder:
        starts = [
            Start("Python alone", [run(python, Path(folder), given.timeout) for _ in range(repeat)]),
            Start(
                "rundiff --help", [run(show_help, Path(folder), given.timeout) for _ in range(repeat)], 0.3
            ),
        ]
    settings = Settings(
        data=given.data.resolve(), repeat=repeat, first_repeat=repeat, timeout=given.timeout, tell=_tell
    )
    syncing = [each for each in CONTESTANTS if each.name in ("rundiff", "rundiff-duckdb")]
    contest = Contest(settings, syncing)
    try:
        for entry in [*contest.first(snapshot, measured=True), *contest.second(snapshot)]:
            if entry.failure is not None:
                raise BenchmarkError(entry.failure)
            title = f"sync of 1,000 rows, {entry.phase} run: {entry.contestant.title}"
            starts.append(Start(title, entry.measured, 1.0))
    finally:
        contest.close()
    return starts


def _folder(given: argparse.Namespace) -> Path:
    data: Path = given.data
    return data.resolve() / f"files-{_GENERATION}"


def _arguments() -> argparse.Namespace:
    names = [each.name for each in CONTESTANTS]
    usual = [name for name in names if name != _DEFAULT_LEFT_OUT]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    _choice(parser, "--shapes", SHAPES, ["middle"])
    _choice(parser, "--sizes", list(SIZES), ["100k", "1m"])
    _choice(parser, "--rates", [str(rate) for rate in RATES], ["1"], "per cent of rows changed")
    _choice(parser, "--peers", names, usual, "Rundiff is one of them")
    _choice(parser, "--phases", ["first", "second", "limit"], ["first", "second", "limit"])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--first-repeat", type=int, help="runs of each first run (default: as --repeat)")
    parser.add_argument("--no-start", dest="start", action="store_false", help="leave out the start times")
    parser.add_argument(
        "--timeout", type=float, default=3_600, help="seconds for one process (default: 3600)"
    )
    parser.add_argument("--output", default="latest", help="name of the page in benchmarks/results")
    parser.add_argument("--data", type=Path, default=_HERE / "data", help="where files and state are kept")
    parser.add_argument("--discard", action="store_true", help="remove the files of a size when it's done")
    given = parser.parse_args()
    given.sizes = [SIZES[size] for size in given.sizes]
    given.rates = [int(rate) for rate in given.rates]
    if given.repeat < 1 or (given.first_repeat is not None and given.first_repeat < 1):
        parser.error("repeat at least once")
    return given


def _choice(
    parser: argparse.ArgumentParser, flag: str, known: Sequence[str], usual: Sequence[str], note: str = ""
) -> None:
    def chosen(text: str) -> list[str]:
        asked = list(known) if text == "all" else text.split(",")
        wrong = [value for value in asked if value not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)} is not one of {', '.join(known)}")
        return asked

    described = f"{note}: " if note else ""
    parser.add_argument(
        flag,
        type=chosen,
        default=list(usual),
        metavar="A,B",
        help=f"{described}all or some of {','.join(known)} (default: {','.join(usual)})".replace("%", "%%"),
    )


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as problem:
        sys.exit(f"benchmarks: {problem}")
