"""The command's frame: which commands there are, and how its errors and exit codes leave it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from rundiff.cli.invocation import Invocation
from rundiff.cli.stopping import orderly_stops, stop_code, stop_sentence
from rundiff.errors import RundiffError
from rundiff.options import nearest

__all__ = ["COMMANDS", "app", "main"]

COMPLETION = "_RUNDIFF_COMPLETE"
"""Set by the shell that asks click for completions."""
PIPE_CLOSED = 141
"""128 + SIGPIPE, as shells count it."""

_HINT = re.compile(r"\. \(?Did you mean (.*)\?\)?$")


class Entry(NamedTuple):
    """A command that is imported when it is asked for."""

    module: str
    section: str
    summary: str


COMMANDS = {
    "sync": Entry("running", "Run", "Find what changed and deliver it."),
    "plan": Entry("running", "Run", "Preview a sync: counts and a sample of its changes."),
    "apply": Entry("running", "Run", "Deliver exactly what a plan holds."),
    "status": Entry("looking", "Look", "Show all syncs and their last runs."),
    "runs": Entry("looking", "Look", "List runs, newest first."),
    "show": Entry("looking", "Look", "Tell all about one run."),
    "history": Entry("looking", "Look", "List every change of one record."),
    "schema": Entry("looking", "Look", "List a sync's fields and their pinned types, or accept others."),
    "sql": Entry("querying", "Look", "Query write records, runs and syncs with SQL."),
    "verify": Entry("verifying", "Act", "Compare what a destination holds with the baseline."),
    "adopt": Entry("adopting", "Act", "Start from what a destination already holds."),
    "approve": Entry("acting", "Act", "Deliver what a guard held."),
    "retry": Entry("acting", "Act", "Send what was set aside again."),
    "discard": Entry("acting", "Act", "Drop what a guard held, or a record that is set aside."),
    "reset": Entry("acting", "Act", "Forget a sync's baseline, key and destination."),
    "rebuild": Entry("acting", "Act", "Make a lost baseline anew from the write log."),
    "rollback": Entry("acting", "Act", "Go back to the baseline of an earlier run."),
    "init": Entry("starting", "Set up", "Write a rundiff.toml to start from."),
    "migrate": Entry("migrating", "Set up", "Bring the database's tables up to date."),
    "doctor": Entry("doctor", "Set up", "Check what is installed and reachable."),
}
"""The commands in the order of `rundiff --help`; the module's attribute is `NAME_command`."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands in their order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"rundiff.cli.{entry.module}"), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"There is no command {args[0]} ({nearest(args[0], COMMANDS)})")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """List the commands by section, without importing any."""
        width = max(map(len, COMMANDS))
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [
                (name.ljust(width), entry.summary)
                for name, entry in COMMANDS.items()
                if entry.section == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 held by a guard, 4 some records were "
    "refused or unreadable, 5 another run holds the sync.",
)
@click.version_option(package_name="rundiff", prog_name="rundiff", message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Find what changed in a source since the last run, and deliver only that.

    Start with `rundiff init --example`, or at once:

    \b
        rundiff sync people.csv --key id --to sqlite:///crm.db --into people
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (design section 7)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    invocation = Invocation(debug="--debug" in given, whole_process=arguments is None)
    if arguments is None and not invocation.debug and not sys.warnoptions:
        # Libraries warn their programmers; whoever runs the command can do nothing about it.
        warnings.simplefilter("ignore")
    if arguments is None:
        # The process is ours. NumPy's linear algebra would start threads that nothing here uses, and
        # collecting cycles while modules are imported takes a tenth of the start: they make half a
        # million objects.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Arrow's allocator (mimalloc) would give memory back after 10 milliseconds, and the system clear it anew at
        # its next use: of long texts, a tenth and more of a run's processor time. This is in milliseconds, too.
        os.environ.setdefault("MIMALLOC_PURGE_DELAY", "1000")
        gc.set_threshold(1_000_000, 20, 20)
    # The summary and the objects of --json tell what the log would; standard error is theirs.
    logging.getLogger("rundiff").addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows fewer characters than the data shall show an escape, not break the run.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIO hides it
    try:
        code = _run(given, invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    return code


def _run(given: list[str], invocation: Invocation) -> int:
    try:
        if COMPLETION in os.environ:
            app.main(given, prog_name="rundiff")
        # Not through app.main, which takes a closed pipe for a failure.
        with orderly_stops(), app.make_context("rundiff", given, obj=invocation) as context:
            outcome = app.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - one sentence instead of any traceback
        if invocation.debug:
            _print_trace()
        sentence, code = _told(error, invocation)
        invocation.complain(sentence)
        # With --detailed-exitcode, 2 means that there are changes.
        return 1 if code == 2 and "--detailed-exitcode" in given else code
    return outcome if isinstance(outcome, int) else 0


def _told(error: BaseException, invocation: Invocation) -> tuple[str, int]:
    """Give an error's sentence and exit code."""
    if isinstance(error, RundiffError):
        return str(error), error.exit_code
    if isinstance(error, click.UsageError):
        place = error.ctx.command_path if error.ctx else "rundiff"
        # click's hints are sentences of their own, sometimes in brackets.
        message = _HINT.sub(r" (did you mean \1?)", error.format_message()).rstrip(".")
        return f"{message}; see `{place} --help`.", error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return stop_sentence(error), stop_code(error)
    return invocation.unexpected(error), 1


def _print_trace() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)


def _give_up_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush can't fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
