"""A progress bar on standard error, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rundiff.cli.values import amount, printable
from rundiff.engine.views import Progress

__all__ = ["follow", "pace"]

Hook = Callable[[Progress], None]

UNITS = {"reading": "records", "sealing": "records", "delivering": "changes", "committing": "changes"}


def pace(done: int, seconds: float, unit: str) -> str:
    """Write how much was done, and how fast: `1,200 records, 400 a second`."""
    rate = f", {amount(round(done / seconds))} a second" if seconds >= 0.1 and done else ""
    return f"{amount(done)} {unit}{rate}"


@contextmanager
def follow(name: str, *, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Hook | None]:
    """Show where a run stands while the block lasts; gives None where nobody would see it."""
    stream = stream or sys.stderr
    if quiet or not stream.isatty():
        yield None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from rundiff.cli.console import console

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.fields[name]}  {task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
        console=console(stream),
        transient=True,
    )
    shown = printable(name)
    task = bar.add_task("starting", name=shown, pace="", total=None)
    phase = ""

    def hook(progress: Progress) -> None:
        nonlocal phase
        if progress.phase != phase:
            phase = progress.phase
            bar.reset(task, description=phase.ljust(10), total=None, name=shown, pace="")
        by_bytes = progress.total is None and progress.bytes_total is not None
        bar.update(
            task,
            completed=(progress.bytes_done or 0) if by_bytes else progress.done,
            total=progress.bytes_total if by_bytes else progress.total,
            pace=pace(progress.done, bar.tasks[0].elapsed or 0.0, UNITS.get(phase, "records")),
        )

    with bar:
        yield hook
