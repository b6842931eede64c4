"""`rundiff adopt`: start from what a destination already holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from rundiff.cli.invocation import Invocation
from rundiff.cli.jobs import Job, combined, perform
from rundiff.cli.running import chosen, sync_arguments
from rundiff.errors import ConfigurationError
from rundiff.model import RunKind
from rundiff.settings import SyncSettings

__all__ = ["adopt_command"]


@click.command("adopt", short_help="Start from what a destination already holds.")
@sync_arguments
@click.option(
    "--from-destination", is_flag=True, help="Take the rows of the destination's table for the baseline."
)
@click.option("--dry-run", is_flag=True, help="Count only; change nothing.")
@click.pass_obj
def adopt_command(
    invocation: Invocation,
    /,
    targets: Sequence[str],
    *,
    from_destination: bool,
    dry_run: bool,
    **given: Any,
) -> int:
    """Make a first baseline of what a destination's table already holds.

    The next run then writes only the difference between the source and the table, and deletes rows that
    the source does not have, as guards allow. Nothing is written to the table itself.

    Takes the same arguments as `rundiff sync`.
    """
    if not from_destination:
        raise ConfigurationError(
            "rundiff adopt takes the rows of a table for the baseline: say so by --from-destination."
        )
    jobs = [_job(settings, dry_run=dry_run) for settings in chosen(invocation, targets, given)]
    return combined([outcome.code for outcome in perform(invocation, jobs)])


def _job(settings: SyncSettings, *, dry_run: bool) -> Job:
    return Job(
        settings.name,
        lambda workspace, hook: workspace.adopt(settings, dry_run=dry_run, progress=hook),
        kind=RunKind.ADOPT,
    )
