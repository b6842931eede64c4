"""`rundiff verify`: compare what destinations hold with the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rundiff.cli.invocation import Invocation, common_options
from rundiff.cli.jobs import combined, exit_code
from rundiff.cli.progress import follow
from rundiff.errors import ConfigurationError, RundiffError
from rundiff.project import derived_name
from rundiff.settings import DestinationOptions, SyncSettings

if TYPE_CHECKING:
    from rundiff.engine.views import Verification
    from rundiff.engine.workspace import Workspace

__all__ = ["verify_command"]

SAMPLES = 20


@click.command("verify", short_help="Compare what a destination holds with the baseline.")
@click.argument("names", nargs=-1, metavar="[NAME | SOURCE]...")
@click.option(
    "--repair", is_flag=True, help="Write rows that drifted or are missing again, in a run of its own."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=SAMPLES,
    show_default=True,
    help="Keys to list of each kind of difference.",
)
@click.option("--to", metavar="DESTINATION", help="The destination's URL, where it needs a password.")
@common_options(quiet=True)
@click.pass_obj
def verify_command(
    invocation: Invocation, names: Sequence[str], *, repair: bool, limit: int, to: str | None
) -> int:
    """Compare what a destination's table holds with what the baseline says, row by row.

    Lists rows that have drifted, are missing, or are foreign: of keys that the baseline does not hold.
    Foreign rows are never touched. NAME is a sync of rundiff.toml or of `rundiff status`; without one
    all syncs of rundiff.toml are compared, or, where there is none, all that were ever run.
    """
    invocation.require_home()
    if to is not None and len(names) != 1:
        raise ConfigurationError("--to is the destination of one sync: name one.")
    codes = []
    with invocation.workspace() as workspace:
        known = {view.name: None for view in workspace.syncs()}
        wanted = dict.fromkeys(names) or invocation.project.syncs or known
        for given in wanted:
            name = given if given in known or derived_name(given) not in known else derived_name(given)
            codes.append(_one(invocation, workspace, name, (repair, limit, to)))
    return combined(codes)


def _one(
    invocation: Invocation, workspace: Workspace, name: str, options: tuple[bool, int, str | None]
) -> int:
    repair, limit, to = options
    try:
        given: SyncSettings | DestinationOptions | None = DestinationOptions(url=to)
        if to is None:
            given = invocation.project.settings(name) if name in invocation.project.syncs else None
        with follow(name, quiet=invocation.quiet) as hook:
            found = workspace.verify(name, given, repair=repair, limit=limit, progress=hook)
    except RundiffError as error:
        if invocation.debug:
            raise
        invocation.complain(str(error))
        if invocation.as_json:
            from rundiff.cli.objects import failed_verification_object

            invocation.json([failed_verification_object(name, error)])
        return error.exit_code
    _tell(invocation, found)
    return code_of(found)


def code_of(found: Verification) -> int:
    """Give the exit code: 0 where all agree or were repaired, 3 where a guard holds.

    4 where some do not agree, or could not be compared.
    """
    if found.repair is None:
        return 4 if found.differences or found.unverified else 0
    left = 4 if found.unrepaired or found.repeated or found.unverified else 0
    return combined([exit_code(found.repair), left])


def _tell(invocation: Invocation, found: Verification) -> None:
    if invocation.as_json:
        from rundiff.cli.objects import verification_object

        invocation.json([verification_object(found)])
    elif not invocation.quiet:
        from rundiff.cli.render_verify import verification_text

        invocation.show(verification_text(found, invocation.masked, invocation.home_flag))
