"""What `rundiff verify` found, for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from rich.console import RenderableType
from rich.text import Text

from rundiff.cli.render_runs import grid, summary
from rundiff.cli.values import amount, key_shown, plural, printable, shown
from rundiff.engine.views import Difference, Verification

__all__ = ["verification_text"]

_KINDS = {
    "drifted": ("row has drifted", "rows have drifted", "~", "yellow"),
    "missing": ("row is missing", "rows are missing", "-", "red"),
    "repeated": ("key has several rows", "keys have several rows", "+", "yellow"),
    "foreign": (
        "row is foreign: the baseline does not hold its key",
        "rows are foreign: the baseline does not hold their keys",
        "?",
        "dim",
    ),
}


def verification_text(found: Verification, mask: Callable[[str], str], tail: str) -> Iterator[RenderableType]:
    """Show the figures, samples of each kind of difference, and what helps; `tail` ends commands."""
    columns = ("records", "rows", "agreed", "drifted", "missing", "foreign")
    table = grid("sync", *columns, numbers=columns)
    table.add_row(
        Text(printable(found.sync), style="bold"), *(amount(getattr(found, name)) for name in columns)
    )
    yield table
    name = printable(found.sync)
    for kind, (one, many, sign, style) in _KINDS.items():
        count = getattr(found, kind)
        if not count:
            continue
        yield Text(f"{name}: {amount(count)} {one if count == 1 else many}", style=style)
        sample = [difference for difference in found.sample if difference.kind == kind]
        for difference in sample:
            yield from _difference(difference, sign, style)
        if count > len(sample):
            yield Text(f"    and {amount(count - len(sample))} more", style="dim")
    if found.unverified:
        why = "so they count as uncertain; the next run that reads their records writes them"
        if found.unread:
            why = f"and values of {', '.join(map(printable, found.unread))} can't be read back"
        yield Text(
            f"{name}: {plural(found.unverified, 'row')} can't be compared: what was delivered is not known, {why}",
            style="yellow",
        )
    if found.confirmed:
        yield Text(f"{name}: {plural(found.confirmed, 'assumed row')} proved right")
    for sentence in found.warnings:
        yield Text(f"{name}: {mask(sentence)}", style="yellow")
    if found.repair is not None:
        yield from summary([(found.repair, None)], mask, tail)
    if found.unrepaired:
        yield Text(
            f"{name}: {plural(found.unrepaired, 'row')} can't be repaired, for the data are not in the write log; the "
            "next run that reads them writes them",
            style="yellow",
        )
    elif found.repair is None and found.drifted + found.missing:
        yield Text(f"    write them again:  rundiff verify {shlex.quote(found.sync)} --repair{tail}")


def _difference(difference: Difference, sign: str, style: str) -> Iterator[Text]:
    yield Text(f"    {sign} {key_shown(difference.primary_key)}", style=style)
    for field, expected in difference.expected.items():
        yield Text(f"        {printable(field)}: {shown(expected)} → {shown(difference.found.get(field))}")
