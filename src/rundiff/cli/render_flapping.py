"""Records that change back and forth, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from rundiff.cli.values import amount, key_shown, plural, printable
from rundiff.engine.views import Flapping, FlappingRecord

__all__ = ["flapping_text"]

SAMPLES_SHOWN = 5


def flapping_text(flapping: Flapping | None) -> Iterator[Text]:
    """Name the records that flap; nothing where none does."""
    if flapping is None or not flapping.count:
        return
    about = "about " if flapping.estimated else ""
    yield Text(
        f"{about}{plural(flapping.count, 'record')} changed back and forth in the runs {flapping.from_run} to "
        f"{flapping.to_run}:",
        style="yellow",
    )
    shown = flapping.sample[:SAMPLES_SHOWN]
    for record in shown:
        yield Text(f"    {key_shown(record.primary_key)}: {_what(record)}")
    if flapping.count > len(shown):
        yield Text(f"    and {about}{amount(flapping.count - len(shown))} more", style="dim")


def _what(record: FlappingRecord) -> str:
    told = f"{plural(record.changes, 'change')}, {amount(record.returns)} of them back to an earlier state"
    if record.fields:
        told += f"; {printable(', '.join(record.fields))}"
    if record.deletes:
        told += f"; deleted {'once' if record.deletes == 1 else f'{amount(record.deletes)} times'}"
    return told
