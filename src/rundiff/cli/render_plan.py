"""Changes for people, field by field, the way a plan is read before it is applied."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from rundiff.cli.values import amount, key_shown, plural, printable, shown
from rundiff.engine.views import Change, HistoryEntry, Plan
from rundiff.model import Action, RunResult

__all__ = ["SIGNS", "change_text", "history_text", "plan_text"]

Mask = Callable[[str], str]

SIGNS = {
    Action.CREATE: ("+", "green"),
    Action.INSERT: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.DELETE: ("-", "red"),
}
"""The sign and the colour of each action."""
FIELDS_SHOWN = 20
"""Fields of one change that people get to see; --json has all."""


def plan_text(plan: Plan, mask: Mask, tail: str = "") -> Iterator[Text]:
    """Show a plan: a sample of real changes, then the counts, then what guards would hold.

    `tail` ends the command that is offered.
    """
    result = plan.result
    read = f"{plural(result.counts.records_read, 'record')} read, {amount(result.counts.unchanged)} unchanged"
    yield Text.assemble((printable(result.sync), "bold"), f"  {read}")
    for actions, total in _totals(result):
        chosen = [change for change in plan.sample if change.action in actions]
        for change in chosen:
            yield from change_text(change)
        if total > len(chosen):
            sign, colour = SIGNS[actions[0]]
            word = "more " if chosen else ""
            noun = plural(total - len(chosen), f"{word}{_noun(actions[0])}")
            yield Text(f"  {sign} and {noun}" if chosen else f"  {sign} {noun}", style=colour)
    yield Text("")
    yield from _outlook(plan, mask, tail)


def _totals(result: RunResult) -> list[tuple[tuple[Action, ...], int]]:
    counts = result.counts
    return [
        ((Action.CREATE, Action.INSERT), counts.created),
        ((Action.UPDATE,), counts.updated),
        ((Action.DELETE,), counts.deleted),
    ]


def _noun(action: Action) -> str:
    return {Action.UPDATE: "update", Action.DELETE: "delete"}.get(action, "create")


def _outlook(plan: Plan, mask: Mask, tail: str) -> Iterator[Text]:
    result, counts = plan.result, plan.result.counts
    if plan.changes or counts.deletes_held:
        held = f", {plural(counts.deletes_held, 'deletion')} held" if counts.deletes_held else ""
        yield Text.assemble(
            ("Plan: ", "bold"),
            f"{amount(counts.created)} to create, {amount(counts.updated)} to update, "
            f"{amount(counts.deleted)} to delete{held}.",
        )
    else:
        yield Text.assemble(("Plan: ", "bold"), "no changes.")
    for sentence in plan.holds:
        yield Text(f"Would be held: {mask(sentence)}", style="yellow")
    if counts.unreadable:
        yield Text(f"Skipped: {plural(counts.unreadable, 'unreadable record')}.", style="yellow")
    if counts.invalid_keys:
        yield Text(f"Skipped: {plural(counts.invalid_keys, 'record', 'without a key')}.", style="yellow")
    for sentence in result.warnings:
        yield Text(f"Warning: {mask(sentence)}", style="yellow")
    if plan.path:
        yield Text(f"Deliver exactly this with: rundiff apply {shlex.quote(plan.path)}{tail}")


def change_text(change: Change) -> Iterator[Text]:
    """Show one change: its sign, its key, and its fields."""
    sign, colour = SIGNS[change.action]
    yield Text.assemble((f"  {sign} {change.action}", colour), "  ", (key_shown(change.primary_key), "bold"))
    lines = list(_fields(change))
    yield from lines[:FIELDS_SHOWN]
    if len(lines) > FIELDS_SHOWN:
        yield Text(f"      and {plural(len(lines) - FIELDS_SHOWN, 'more field')}", style="dim")


def _fields(change: Change) -> Iterator[Text]:
    before, after = change.before or {}, change.after or {}
    if change.action is not Action.UPDATE:
        for name, value in (before if change.action is Action.DELETE else after).items():
            if name not in change.primary_key:
                yield Text(f"      {printable(name)}: {shown(value)}", style="dim")
        return
    for name in _changed(change, before, after):
        old = "(not known)" if change.before is None else shown(before.get(name))
        yield Text.assemble(
            f"      {printable(name)}: ", (old, "red"), " → ", (shown(after.get(name)), "green")
        )


def _changed(change: Change, before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Name the fields to show of an update; all of them where what was there before is not known."""
    if change.changed_fields is not None:
        return change.changed_fields
    names = dict.fromkeys([*before, *after])
    if change.before is None:
        return [name for name in names if name not in change.primary_key]
    return [name for name in names if before.get(name) != after.get(name)]


def history_text(entries: Sequence[HistoryEntry]) -> Iterator[Text]:
    """Show every change of a record, oldest first."""
    for entry in entries:
        status = "" if entry.status == "written" else f"  {entry.status}"
        when = entry.at.isoformat(sep=" ", timespec="seconds")
        yield Text.assemble((f"run {entry.run}", "bold"), f"  {when}{status}")
        yield from change_text(entry.change)
