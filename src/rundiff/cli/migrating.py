"""`rundiff migrate`: bring the tables of a database on a server up to date."""

from __future__ import annotations

import click

from rundiff.cli.invocation import Invocation, common_options

__all__ = ["migrate_command"]


@click.command("migrate", short_help="Bring the database's tables up to date.")
@common_options(as_json=False)
@click.pass_obj
def migrate_command(invocation: Invocation) -> None:
    """Bring the tables of the database up to date after an upgrade of Rundiff; all they hold is kept.

    An empty database gets its tables at first use, and the home directory is always up to date.
    """
    from rundiff.engine.workspace import Workspace

    invocation.require_home()
    place, before, after = Workspace.migrate(invocation.storage)
    if before is None:
        invocation.tell(f"{place}: made the tables, schema {after}.")
    elif before == after:
        invocation.tell(f"{place}: the tables are up to date, schema {after}.")
    else:
        invocation.tell(f"{place}: brought the tables from schema {before} to {after}.")
