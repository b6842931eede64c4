"""Write what was measured as one Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.cases import Phase, Snapshot
from benchmarks.contest import Entry
from benchmarks.figures import Start, bars, figures, find

__all__ = ["Heading", "markdown"]

_MIB = 2**20
_HOW = """\
Each figure is the median of runs of whole processes, measured from outside; contestants take turns on the same
files. *Wall* is the whole process (with least and most), *work* what it says of itself without starting Python
and importing. *Ratio* is its wall time by that of the first Rundiff row above it: above 1, Rundiff is faster.
*CPU* adds up all cores. *Peak* is the resident set, mapped files included; *anonymous* leaves those out.
*Rows* are those of the extract that the run was given. Every result was checked against the known truth."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What the page says before its tables."""

    title: str
    command: str
    began: str
    machine: Sequence[str]
    versions: Sequence[str]


def markdown(heading: Heading, entries: Sequence[Entry], starts: Sequence[Start]) -> str:
    """Give the page: machine, bars, then a table a case."""
    parts = [f"# {heading.title}", _heading(heading), _HOW, _bars(entries, starts)]
    parts += [_case("First run", "first", case, entries) for case in _cases(entries, "first")]
    parts += [_case("Second run", "second", case, entries) for case in _cases(entries, "second")]
    parts += [_limits(case, entries) for case in _cases(entries, "limit")]
    parts += [_starts(starts), _failures(entries)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(heading: Heading) -> str:
    lines = [*heading.machine, ", ".join(heading.versions), f"begun {heading.began}: `{heading.command}`"]
    return "\n".join(f"- {line}" for line in lines)


def _cases(entries: Sequence[Entry], phase: Phase) -> Iterable[Snapshot]:
    return dict.fromkeys(entry.snapshot for entry in entries if entry.phase == phase)


def _bars(entries: Sequence[Entry], starts: Sequence[Start]) -> str:
    found = bars(entries, starts)
    if not found:
        return ""
    note = (
        "Rundiff counts with its whole process and peers with their work alone, "
        "so that no bar holds only because a peer takes long to import."
    )
    rows = [(bar.what, bar.required, bar.measured, "yes" if bar.holds else "**no**") for bar in found]
    return f"## The bars of the design\n\n{note}\n\n" + _table(("bar", "required", "measured", "holds"), rows)


def _case(title: str, phase: Phase, snapshot: Snapshot, entries: Sequence[Entry]) -> str:
    name = f"{snapshot.shape}, {snapshot.rows:,} rows" if phase == "first" else snapshot.title
    truth = snapshot.truth
    changed = (
        "All rows are new."
        if phase == "first"
        else f"{truth.created:,} new, {truth.updated:,} updated, {truth.deleted:,} deleted."
    )
    given = snapshot.rows if phase == "first" else snapshot.new_rows
    rows = []
    for entry in entries:
        if entry.phase != phase or entry.snapshot != snapshot or not entry.measured:
            continue
        taken = figures(entry.measured)
        reference = find(entries, phase, snapshot, entry.contestant.reference)
        rows.append(
            (
                entry.contestant.title,
                f"{taken.wall:.2f} ({taken.least:.2f}-{taken.most:.2f})",
                f"{taken.wall / reference.wall:.2f}" if reference else "-",
                f"{taken.work:.2f}",
                f"{taken.cpu:.2f}",
                f"{taken.peak_rss / _MIB:,.0f}",
                f"{taken.peak_anonymous / _MIB:,.0f}",
                f"{given / taken.wall / 1e6:.2f}",
                "-" if entry.state_bytes is None else f"{entry.state_bytes:.0f}",
                str(len(entry.measured)),
            )
        )
    heads = (
        "contestant",
        "wall s",
        "ratio",
        "work s",
        "CPU s",
        "peak MiB",
        "anonymous MiB",
        "M rows/s",
        "state B/record",
        "runs",
    )
    return f"## {title}: {name}\n\n{changed}\n\n{_table(heads, rows)}"


def _limits(snapshot: Snapshot, entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        if entry.phase != "limit" or entry.snapshot != snapshot or not entry.measured:
            continue
        seconds = figures(entry.measured).work
        stated = entry.measured[0].answer["figures"]
        rows.append(
            (
                entry.contestant.title,
                f"{seconds:.4f}",
                f"{stated['rows']:,.0f}",
                f"{stated['bytes'] / stated['rows']:.0f}",
                f"{stated['rows'] / seconds / 1e6:.2f}",
                f"{stated['bytes'] / seconds / 1e9:.2f}",
            )
        )
    note = "Bytes are those of the encoding that is signed; for reading, those of the columns in memory."
    heads = ("limit", "s", "rows", "B/row", "M rows/s", "GB/s")
    return f"## Limits: {snapshot.shape}, file of {snapshot.rows:,} rows\n\n{note}\n\n{_table(heads, rows)}"


def _starts(starts: Sequence[Start]) -> str:
    if not starts:
        return ""
    rows = []
    for start in starts:
        taken = figures(start.measured)
        rows.append(
            (
                start.title,
                f"{taken.wall:.3f} ({taken.least:.3f}-{taken.most:.3f})",
                f"{taken.cpu:.3f}",
                f"{taken.peak_rss / _MIB:,.0f}",
                str(len(start.measured)),
            )
        )
    return "## Start: whole processes\n\n" + _table(("command", "wall s", "CPU s", "peak MiB", "runs"), rows)


def _failures(entries: Sequence[Entry]) -> str:
    failed = [entry for entry in entries if entry.failure is not None]
    if not failed:
        return ""
    lines = [f"- {entry.contestant.title}, {entry.phase} run, {entry.snapshot.title}" for entry in failed]
    return "## Failed\n\nThese gave an error, a wrong answer, or none in time.\n\n" + "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = "|" + "---|" + "---:|" * (len(heads) - 1)
    return "\n".join([_row(heads), line, *(_row(row) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
