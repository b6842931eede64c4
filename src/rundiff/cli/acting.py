"""`rundiff approve`, `retry`, `discard`, `reset`, `rollback` and `rebuild`: a person decides."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from rundiff.cli.invocation import Invocation, common_options
from rundiff.cli.jobs import Job, combined, perform
from rundiff.cli.looking import parse_key
from rundiff.cli.values import plural
from rundiff.errors import ConfigurationError
from rundiff.model import RunKind

if TYPE_CHECKING:
    from rundiff.engine.workspace import Workspace

__all__ = [
    "approve_command",
    "discard_command",
    "rebuild_command",
    "reset_command",
    "retry_command",
    "rollback_command",
]

_DIGEST = re.compile(r"[0-9a-fA-F]{8,64}")


@click.command("approve", short_help="Deliver what a guard held.")
@click.argument("name")
@click.option("--digest", metavar="HEX", help="Only if the held set is still this one.")
@common_options(quiet=True)
@click.pass_obj
def approve_command(invocation: Invocation, name: str, digest: str | None) -> int:
    """Deliver what a guard held, in a run of its own.

    The summary of the run that held it prints this command with the set's digest, so that exactly
    what was shown is approved.
    """
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ConfigurationError(
            "--digest takes at least 8 hex digits, as the summary of the held run prints them."
        )
    invocation.require_home()
    url = invocation.project.destination_url(name)
    # An API needs its headers, too, and Kafka its client's properties.
    with_options = url is not None and url.lower().startswith(("http", "kafka"))
    options = invocation.project.destination(name) if with_options else None
    job = Job(
        name,
        lambda workspace, _: workspace.approve(name, digest, url, options),
        to_stdout=None,
        kind=RunKind.APPROVE,
    )
    return combined([outcome.code for outcome in perform(invocation, [job])])


@click.command("retry", short_help="Send what was set aside again.")
@click.argument("name")
@click.option("--record", metavar="KEY", help="Only this record; KEY as in `rundiff history`.")
@common_options(quiet=True)
@click.pass_obj
def retry_command(invocation: Invocation, name: str, record: str | None) -> int:
    """Send the records that were refused, or whose outcome is unknown, again, in a run of its own.

    The data are those of the write log, under new idempotency keys. What is refused again stays set
    aside.
    """
    invocation.require_home()
    destination = invocation.project.destination(name)
    job = Job(
        name,
        lambda workspace, _: workspace.retry(
            name, None if record is None else _record_key(workspace, name, record), destination
        ),
        to_stdout=None,
        kind=RunKind.RETRY,
    )
    return combined([outcome.code for outcome in perform(invocation, [job])])


def _record_key(workspace: Workspace, name: str, text: str) -> dict[str, str]:
    sync, _ = workspace.show(name)
    return parse_key(text, sync.primary_key)


@click.command("discard", short_help="Drop what a guard held, or a record that is set aside.")
@click.argument("name")
@click.option(
    "--record", metavar="KEY", help="Drop what is set aside of this record; KEY as in `rundiff history`."
)
@common_options()
@click.pass_obj
def discard_command(invocation: Invocation, name: str, record: str | None) -> None:
    """Drop what a guard held; the next complete run finds it anew.

    With --record, drop what is set aside of that record instead. The baseline stays as it is: a run
    that reads the record and finds it different tries again.
    """
    if record is not None:
        with invocation.existing_workspace() as workspace:
            dropped = workspace.discard_record(name, _record_key(workspace, name, record))
        if invocation.as_json:
            invocation.json([{"sync": name, "record": record, "dropped": dropped}])
            return
        invocation.tell(f"{name}: dropped what was set aside of the record {record}.")
        return
    with invocation.existing_workspace() as workspace:
        held = workspace.discard(name)
    if invocation.as_json:
        from rundiff.cli.objects import held_object

        invocation.json([{"sync": name, **held_object(held)}])
        return
    what = plural(held.count, "held deletion") if held.what == "deletions" else f"the held run {held.run}"
    invocation.tell(f"{name}: dropped {what}; the next complete run judges anew.")


@click.command("reset", short_help="Forget a sync's baseline, key and destination.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask, not even on a terminal.")
@common_options(as_json=False)
@click.pass_obj
def reset_command(invocation: Invocation, name: str, *, yes: bool) -> None:
    """Forget a sync's baseline, key and destination; its runs keep their numbers and their history.

    The next run sees every record as new. The destination itself is not touched.
    """
    if not yes and sys.stdin.isatty():
        question = f"Forget the baseline of {name}? The next run will send every record again."
        click.confirm(invocation.masked(question), abort=True, err=True)
    with invocation.existing_workspace() as workspace:
        workspace.reset(name)
    invocation.tell(f"{name}: forgotten; the next run sends every record.")


@click.command("rebuild", short_help="Make a lost baseline anew from the write log.")
@click.argument("name")
@common_options(as_json=False)
@click.pass_obj
def rebuild_command(invocation: Invocation, name: str) -> None:
    """Make a sync's baseline anew from its write log, after it was lost or damaged.

    The destination is not touched: what the log says was delivered is taken for what it holds.
    """
    with invocation.existing_workspace() as workspace:
        records = workspace.rebuild(name)
    invocation.tell(
        f"{name}: the baseline was made anew from the write log, with {plural(records, 'record')}."
    )


@click.command("rollback", short_help="Go back to the baseline of an earlier run.")
@click.argument("name")
@click.option("--to-run", type=click.IntRange(min=0), required=True, help="The number of that run.")
@common_options(as_json=False)
@click.pass_obj
def rollback_command(invocation: Invocation, name: str, to_run: int) -> None:
    """Go back to the baseline of an earlier run.

    This tells Rundiff that the destination was restored to its state after that run, from a backup
    for instance; the destination itself is not touched.
    """
    with invocation.existing_workspace() as workspace:
        workspace.rollback(name, to_run, invocation.project.destination_url(name))
    invocation.tell(f"{name}: the baseline is that of run {to_run} again.")
