"""`rundiff status`, `runs`, `show`, `history` and `schema`: looking changes nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

import click

from rundiff.cli.invocation import Invocation, common_options
from rundiff.engine.views import SyncView
from rundiff.errors import ConfigurationError

__all__ = [
    "history_command",
    "parse_key",
    "runs_command",
    "schema_command",
    "show_command",
    "status_command",
]

NEVER_RUN = {"last_run": None, "last_status": None, "last_finished": None, "last_counts": None}


@click.command("status", short_help="Show all syncs and their last runs.")
@common_options()
@click.pass_obj
def status_command(invocation: Invocation) -> None:
    """Show all syncs: how many records each holds, what its last run did, what waits for a person."""
    views: Sequence[SyncView] = ()
    if invocation.home_directory.is_dir():
        with invocation.workspace() as workspace:
            views = workspace.syncs()
    known = {view.name for view in views}
    never_run = [name for name in invocation.project.syncs if name not in known]
    if invocation.as_json:
        from rundiff.cli.objects import sync_object

        invocation.json(sync_object(view) for view in views)
        invocation.json({"sync": name, "sync_id": None, "records": 0, **NEVER_RUN} for name in never_run)
        return
    from rundiff.cli.render_runs import status_text

    invocation.show(status_text(views, never_run, invocation.masked, invocation.home_flag))


@click.command("runs", short_help="List runs, newest first.")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many to list.")
@common_options()
@click.pass_obj
def runs_command(invocation: Invocation, name: str | None, limit: int) -> None:
    """List runs, newest first: those of one sync, or of all."""
    with invocation.existing_workspace() as workspace:
        runs = workspace.runs(name, limit)
    if invocation.as_json:
        from rundiff.cli.objects import run_object

        invocation.json(map(run_object, runs))
        return
    from rundiff.cli.render_runs import runs_table

    invocation.show(runs_table(runs))


@click.command("show", short_help="Tell all about one run.")
@click.argument("name")
@click.option("--run", type=click.IntRange(min=1), help="Its number; else the last one.")
@common_options()
@click.pass_obj
def show_command(invocation: Invocation, name: str, run: int | None) -> None:
    """Tell all about one run of a sync: counts, samples of odd records, warnings, what is held.

    Also which records the last runs up to it changed back and forth.
    """
    with invocation.existing_workspace() as workspace:
        sync, view = workspace.show(name, run)
        flapping = workspace.flapping(name, view.result.run)
    if invocation.as_json:
        from rundiff.cli.objects import flapping_object, run_object, sync_object

        described = sync_object(sync)
        chosen = ("sync_id", "primary_key", "source", "destination", "held")
        more = {"flapping": flapping and flapping_object(flapping)}
        invocation.json([{**run_object(view), **{key: described[key] for key in chosen}, **more}])
        return
    from rundiff.cli.render_flapping import flapping_text
    from rundiff.cli.render_runs import run_text

    invocation.show(run_text(sync, view, invocation.masked, invocation.home_flag))
    invocation.show(flapping_text(flapping))


@click.command("history", short_help="List every change of one record.")
@click.argument("name")
@click.argument("key")
@common_options()
@click.pass_obj
def history_command(invocation: Invocation, name: str, key: str) -> None:
    """List every change of one record, oldest first, with what was there before and after.

    KEY is a value (3), the values of several key fields in their order (3,EU), or fields with values
    (id=3,region=EU). A value with a comma goes in double quotes.
    """
    with invocation.existing_workspace() as workspace:
        fields = next((view.primary_key for view in workspace.syncs() if view.name == name), None)
        if fields is None:
            # The engine knows how to say that there is no such sync, and which there are.
            workspace.show(name)
            raise ConfigurationError(f"There is no sync {name}.")
        entries = workspace.history(name, parse_key(key, fields))
    if invocation.as_json:
        from rundiff.cli.objects import history_object

        invocation.json(map(history_object, entries))
        return
    from rich.text import Text

    from rundiff.cli.render_plan import history_text

    nothing = [Text("No change of this record is known.")]
    invocation.show(history_text(entries) if entries else nothing)


@click.command("schema", short_help="List a sync's fields and their pinned types, or accept others.")
@click.argument("words", nargs=-1, required=True, metavar="NAME | accept NAME [FIELD]...")
@click.option(
    "--renamed",
    multiple=True,
    metavar="OLD=NEW",
    help="With accept: a field that the source has under another name now; may be repeated.",
)
@common_options()
@click.pass_obj
def schema_command(invocation: Invocation, words: Sequence[str], renamed: Sequence[str]) -> None:
    """List a sync's fields: their pinned types, and whether they are key, compared, excluded or dropped.

    `accept NAME [FIELD]...` lets the next full run take fields as they come that are no longer what they were:
    of another type, new or gone. Without FIELD, those that the last run met as such.
    """
    if words[0] == "accept" and len(words) > 1:
        _accept(invocation, words[1], words[2:], _renames(renamed))
        return
    if renamed:
        raise click.UsageError("--renamed goes with `accept NAME`.")
    if len(words) > 1:
        raise click.UsageError(f"Give one sync, or `accept {words[0]} FIELD`.")
    name = words[0]
    with invocation.existing_workspace() as workspace:
        fields = workspace.schema(name)
    if invocation.as_json:
        from rundiff.cli.objects import field_object

        invocation.json(map(field_object, fields))
        return
    from rundiff.cli.render_runs import schema_table

    invocation.show(schema_table(fields))


def _renames(texts: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for old, new in map(_rename, texts):
        if old in names or new in names.values():
            twice = old if old in names else new
            raise click.UsageError(
                f"--renamed names {twice} twice: a field has one name before and one after."
            )
        names[old] = new
    return names


def _rename(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not old or not new or old == new:
        raise click.UsageError(f"--renamed takes OLD=NEW, two names of one field; it is {text}.")
    return old, new


def _accept(invocation: Invocation, name: str, fields: Sequence[str], renamed: Mapping[str, str]) -> None:
    with invocation.existing_workspace() as workspace:
        accepted = workspace.accept_schema(name, fields, renamed)
    if invocation.as_json:
        invocation.json([{"sync": name, "accepted": list(accepted)}])
        return
    invocation.tell(f"{name}: the next full run takes {', '.join(accepted)} as the source has it.")


def parse_key(text: str, fields: Sequence[str]) -> dict[str, str]:
    """Read the key of one record as people write it.

    >>> parse_key("3,EU", ["id", "region"])
    {'id': '3', 'region': 'EU'}

    Raises:
        ConfigurationError: the values don't match the fields of the key.
    """
    if len(fields) == 1:
        # The only value may hold commas and equals signs of its own.
        return {fields[0]: text.removeprefix(f"{fields[0]}=")}
    values = next(csv.reader([text]), [])
    named = dict(value.partition("=")[::2] for value in values if "=" in value)
    if len(values) == len(fields) and set(named) == set(fields):
        return {field: named[field] for field in fields}
    if len(values) != len(fields):
        wanted = ",".join(field.upper() for field in fields)
        raise ConfigurationError(f"The key has the fields {', '.join(fields)}: write it as {wanted}.")
    return dict(zip(fields, values, strict=True))
