"""Syncs, runs and fields for people: tables, and below them what needs attention."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rundiff.cli.values import amount, key_shown, plural, printable
from rundiff.engine.views import FieldSchema, HeldSet, RunView, SyncView
from rundiff.model import Counts, RunResult, RunStatus

__all__ = ["grid", "held_text", "run_text", "runs_table", "schema_table", "status_text", "summary"]

Mask = Callable[[str], str]
Details = tuple[SyncView, RunView] | None

STYLES = {
    RunStatus.COMMITTED: "green",
    RunStatus.HELD: "yellow",
    RunStatus.FAILED: "red",
    RunStatus.DISCARDED: "dim",
}
SAMPLES_SHOWN = 5
"""Sentences on odd records of one kind in a summary; `rundiff show` has all that were kept."""
UNFOLDED = frozenset({"sync", "status", "started", "finished"})
"""Columns that read badly in pieces."""
DIGITS_SHOWN = 12
"""Hex digits of a held set's digest in a command: short to type, and no other set has them."""
TOLD_ABOVE = ("without a valid key skipped", "the reading was not complete")
"""Warnings of the result that the details tell line by line."""
ONLY_SHOWN = frozenset({"duplicates"})
"""Kinds that a summary leaves out: they are usual in some sources, and harmless."""
KINDS = {
    "unreadable": ("unreadable record", ""),
    "invalid_keys": ("record", "without a key"),
    "duplicates": ("identical record", ""),
    "conflicts": ("key", "with different records"),
    "failed": ("refused record", ""),
}


def grid(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """Make a plain table: no lines, two spaces between columns, numbers to the right."""
    right = frozenset(numbers)
    # What doesn't fit a terminal is folded, never cut.
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=column in right | UNFOLDED, overflow="fold")
    return table


def summary(
    finished: Sequence[tuple[RunResult, Details]], mask: Mask, tail: str = ""
) -> Iterator[RenderableType]:
    """Show what runs did: a line each, then what a person should look at.

    `tail` ends the commands that are offered: flags that this command was given too.
    """
    numbers = ("run", "read", "+", "~", "-", "held", "time")
    table = grid("sync", "run", "status", "read", "+", "~", "-", "held", "time", numbers=numbers)
    for result, _ in finished:
        counts = result.counts
        table.add_row(
            Text(printable(result.sync), style="bold"),
            "" if result.run is None else str(result.run),
            _status(result),
            amount(counts.records_read),
            *_signed(counts),
            Text(amount(counts.deletes_held), style="yellow") if counts.deletes_held else "",
            f"{result.seconds:.1f} s",
        )
    yield table
    for result, details in finished:
        yield from _notes(result, details, mask, tail)


def _status(result: RunResult) -> Text:
    kind = "" if result.kind == "sync" else f" ({result.kind})"
    return Text(f"{result.status}{kind}", style=STYLES.get(result.status, ""))


def _signed(counts: Counts) -> list[RenderableType]:
    return [
        Text(amount(number), style=style) if number else Text("0", style="dim")
        for number, style in ((counts.created, "green"), (counts.updated, "yellow"), (counts.deleted, "red"))
    ]


def _notes(result: RunResult, details: Details, mask: Mask, tail: str) -> Iterator[Text]:
    name = printable(result.sync)
    if details and details[0].held:
        yield from held_text(result.sync, details[0].held, mask, tail)
    elif result.held_reason:
        yield Text(f"{name}: held: {mask(result.held_reason)}", style="yellow")
    samples = details[1].samples if details else {}
    for kind, words in KINDS.items():
        number = getattr(result.counts, kind)
        if number and kind not in ONLY_SHOWN:
            yield Text(f"{name}: {plural(number, *words)}", style="yellow")
            yield from _samples(samples.get(kind, ()), number, mask)
    if result.status is RunStatus.COMMITTED and not result.complete and details:
        for reason in details[1].complete_reasons:
            what = "no absence was taken for a deletion" if result.counts.deleted else "nothing was deleted"
            yield Text(f"{name}: {what}: {mask(reason)}", style="yellow")
    for sentence in result.warnings:
        if details and any(words in sentence for words in TOLD_ABOVE):
            continue
        yield Text(f"{name}: {mask(sentence)}", style="yellow")


def _samples(sentences: Sequence[str], number: int, mask: Mask, most: int = SAMPLES_SHOWN) -> Iterator[Text]:
    for sentence in sentences[:most]:
        yield Text(f"    {mask(sentence)}")
    if sentences and number > len(sentences[:most]):
        yield Text(f"    and {amount(number - len(sentences[:most]))} more", style="dim")


def held_text(sync: str, held: HeldSet, mask: Mask, tail: str = "") -> Iterator[Text]:
    """Show what waits for a person, and the commands that decide."""
    what = plural(held.count, "deletion") if held.what == "deletions" else "the whole run"
    yield Text(f"{printable(sync)}: held: {what}: {mask(held.reason)}", style="yellow")
    for key in held.sample[:SAMPLES_SHOWN]:
        yield Text(f"    - {key_shown(key)}", style="red")
    if held.sample and held.count > len(held.sample[:SAMPLES_SHOWN]):
        yield Text(f"    and {amount(held.count - len(held.sample[:SAMPLES_SHOWN]))} more", style="dim")
    quoted = shlex.quote(sync)
    yield Text(f"    deliver it:  rundiff approve {quoted} --digest {held.digest[:DIGITS_SHOWN]}{tail}")
    if held.expires_at:
        yield Text(f"                 works once, until {_when(held.expires_at)}", style="dim")
    yield Text(f"    drop it:     rundiff discard {quoted}{tail}")


def status_text(
    views: Sequence[SyncView], never_run: Sequence[str], mask: Mask, tail: str = ""
) -> Iterator[RenderableType]:
    """Show all syncs, and what waits for a person."""
    if not views and not never_run:
        yield Text("No syncs yet. Begin with `rundiff init --example`, or see `rundiff sync --help`.")
        return
    numbers = ("records", "run", "+", "~", "-", "held", "set aside")
    table = grid("sync", "records", "run", "status", "finished", *numbers[2:], "destination", numbers=numbers)
    for view in views:
        status = f"running: {mask(view.running)}" if view.running else view.last_status or "never run"
        table.add_row(
            Text(printable(view.name), style="bold"),
            amount(view.records),
            "" if view.last_run is None else str(view.last_run),
            Text(status, style="cyan" if view.running else STYLES.get(_known(view.last_status), "")),
            _when(view.last_finished),
            *(_signed(view.last_counts) if view.last_counts else ("", "", "")),
            Text(amount(view.held.count), style="yellow") if view.held else "",
            Text(amount(view.quarantined), style="yellow") if view.quarantined else "",
            Text(mask(view.destination)),
        )
    for name in never_run:
        table.add_row(Text(printable(name), style="bold"), "", "", Text("never run", style="dim"))
    yield table
    for view in views:
        if view.held:
            yield from held_text(view.name, view.held, mask, tail)


def _known(status: str | None) -> RunStatus:
    return RunStatus(status) if status in list(RunStatus) else RunStatus.READING


def _when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment else ""


def runs_table(runs: Sequence[RunView]) -> Iterator[RenderableType]:
    """Show runs, one a line."""
    if not runs:
        yield Text("No runs yet.")
        return
    numbers = ("run", "read", "+", "~", "-", "held", "failed", "time")
    table = grid("sync", "run", "status", "started", *numbers[1:], numbers=numbers)
    for view in runs:
        counts = view.result.counts
        table.add_row(
            Text(printable(view.result.sync), style="bold"),
            "" if view.result.run is None else str(view.result.run),
            _status(view.result),
            _when(view.started_at),
            *(
                [
                    amount(counts.records_read),
                    *_signed(counts),
                    amount(counts.deletes_held) if counts.deletes_held else "",
                    amount(counts.failed) if counts.failed else "",
                    f"{view.result.seconds:.1f} s",
                ]
                if view.known
                else [""] * 7
            ),
        )
    yield table


def run_text(sync: SyncView, view: RunView, mask: Mask, tail: str = "") -> Iterator[RenderableType]:
    """Tell all about one run."""
    result, counts = view.result, view.result.counts
    yield Text.assemble((f"{printable(result.sync)}, run {result.run}", "bold"), "  ", _status(result))
    noted = {
        "scope": str(result.scope),
        "baseline": str(result.baseline),
        "complete": "yes" if result.complete else "no",
        "time": f"{result.seconds:.1f} s",
        "signer": view.signer,
    }
    if not view.known:
        noted = dict.fromkeys(noted, "not known")
    facts: Mapping[str, str] = {
        "kind": str(result.kind),
        "scope": noted["scope"],
        "baseline": noted["baseline"],
        "complete": noted["complete"],
        "started": _when(view.started_at),
        "finished": _when(view.finished_at) or ("not yet" if view.known else "not known"),
        "time": noted["time"],
        "source": mask(sync.source),
        "destination": mask(sync.destination),
        "primary key": printable(", ".join(sync.primary_key)),
        "signer": noted["signer"],
        "signing key": sync.signing_key_id or "none",
        "sync id": sync.sync_id,
    }
    table = grid("", "")
    table.show_header = False
    for name, value in facts.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(value))
    table.add_row("", "")
    for name in Counts.__struct_fields__:
        number = amount(getattr(counts, name)) if view.known else "not known"
        table.add_row(Text(f"  {name.replace('_', ' ')}", style="dim"), number)
    yield table
    if view.pending:
        yield Text(f"{plural(view.pending, 'pending deletion')} (delete_after_misses):", style="yellow")
        pending = view.samples.get("pending", ())
        yield from _samples(pending, view.pending, mask, len(pending))
    for reason in view.complete_reasons:
        yield Text(f"The reading was incomplete: {mask(reason)}", style="yellow")
    for kind, words in KINDS.items():
        if view.samples.get(kind):
            number = getattr(counts, kind)
            yield Text(f"{plural(number, *words)}:", style="yellow")
            yield from _samples(view.samples[kind], number, mask, len(view.samples[kind]))
    for sentence in result.warnings:
        yield Text(f"Warning: {mask(sentence)}", style="yellow")
    if result.error:
        yield Text(f"Error: {mask(result.error)}", style="red")
    if sync.held and sync.held.run == result.run:
        yield from held_text(sync.name, sync.held, mask, tail)


def schema_table(fields: Sequence[FieldSchema]) -> Iterator[RenderableType]:
    """Show the fields of a sync."""
    formed = any(field.form for field in fields)
    table = grid("field", "type", "role", *(["compared as"] if formed else []))
    for field in fields:
        style = {"key": "bold", "excluded": "dim", "dropped": "dim"}.get(field.role, "")
        form = [Text(printable(", ".join(field.form)))] if formed else []
        table.add_row(Text(printable(field.name), style=style), field.type, field.role, *form)
    yield table
