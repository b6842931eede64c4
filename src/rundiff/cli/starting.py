"""`rundiff init`: a project file to start from."""

from __future__ import annotations

from pathlib import Path

import click

from rundiff.cli.invocation import Invocation, common_options
from rundiff.errors import ConfigurationError
from rundiff.project import PROJECT_FILE

__all__ = ["EXAMPLE_DATA", "EXAMPLE_SYNC", "TEMPLATE", "init_command"]

EXAMPLE_FILE = "people.csv"

TEMPLATE = """\
# The syncs of this directory. Run them with `rundiff sync`, preview them with `rundiff plan`.
# Every key is explained in the page "The project file" of the documentation.

# Where Rundiff keeps its state; --home and RUNDIFF_HOME come first.
# home = ".rundiff"

# How long old baselines are kept for `rundiff rollback`.
# retention = "7d"

# How much local copies of what servers keep may take.
# cache_limit = "10GB"

# Options of all syncs.
# [defaults]
# max_delete_percent = 5
"""

EXAMPLE_SYNC = """
[sync.people]
source = "people.csv"
key = "id"
to = "sqlite:///people.db"
into = "people"
"""

_COMMENTED = """
# [sync.customers]
# source = "data/customers-*.csv.gz"
# key = ["id", "region"]
# to = "${CRM_URL}"               # an environment variable; nothing secret stands here
# into = "customers"
# exclude = ["updated_at", "etl_*"]
"""

EXAMPLE_DATA = """\
id,name,city
1,Ada,London
2,Grace,New York
3,Edsger,Rotterdam
"""


@click.command("init", short_help="Write a rundiff.toml to start from.")
@click.option("--example", is_flag=True, help=f"Also write {EXAMPLE_FILE} and a sync of it.")
@common_options(as_json=False)
@click.pass_obj
def init_command(invocation: Invocation, *, example: bool) -> None:
    """Write a commented rundiff.toml into the current directory; nothing is ever overwritten."""
    files = {PROJECT_FILE: TEMPLATE + (EXAMPLE_SYNC if example else "") + _COMMENTED}
    if example:
        files[EXAMPLE_FILE] = EXAMPLE_DATA
    for name in files:
        if Path(name).exists():
            raise ConfigurationError(f"{name} is there already, and init overwrites nothing.")
    for name, text in files.items():
        try:
            with Path(name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise ConfigurationError(f"{name} can't be written here: {error.strerror}.") from None
    following = "`rundiff sync` delivers it" if example else "write a sync into it, then `rundiff sync`"
    invocation.tell(f"wrote {' and '.join(files)}; {following}.")
