"""`rundiff sync`, `plan` and `apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import click

from rundiff.cli.flags import flow_flags, given_options, option_flags, parts
from rundiff.cli.invocation import Invocation, common_options
from rundiff.cli.jobs import Job, Outcome, combined, perform
from rundiff.errors import ConfigurationError
from rundiff.project import ad_hoc
from rundiff.settings import SyncSettings

__all__ = ["apply_command", "chosen", "plan_command", "sync_arguments", "sync_command"]

Command = TypeVar("Command", bound=Callable[..., Any])


def sync_arguments(command: Command) -> Command:
    """Declare what `sync`, `plan` and `adopt` have in common."""
    command = common_options(quiet=True)(command)
    command = option_flags(command)
    command = click.option(
        "--select",
        multiple=True,
        metavar="PATTERN",
        help="Only the syncs of rundiff.toml whose names match (globs).",
    )(command)
    command = flow_flags(command)
    return click.argument("targets", nargs=-1, metavar="[SOURCE | NAME]...")(command)


@click.command("sync", short_help="Find what changed and deliver it.")
@sync_arguments
@click.option("--fail-fast", is_flag=True, help="Stop at the first sync that fails.")
@click.option("--dry-run", is_flag=True, help="Preview only, like `rundiff plan`.")
@click.pass_obj
def sync_command(
    invocation: Invocation, /, targets: Sequence[str], *, fail_fast: bool, dry_run: bool, **given: Any
) -> int:
    """Find what changed in a source since the last run, and deliver it.

    With --key and --to, SOURCE is synced at once: a path or glob (CSV, TSV, JSON, JSONL, Parquet,
    Arrow; .gz and .zst), or - for standard input. Otherwise the syncs of rundiff.toml are run: those
    named, those that --select matches, or all.
    """
    settings = chosen(invocation, targets, given)
    jobs = [_plan_job(each, None) if dry_run else _sync_job(each) for each in settings]
    outcomes = perform(invocation, jobs, fail_fast=fail_fast)
    return combined([outcome.code for outcome in outcomes])


@click.command("plan", short_help="Preview a sync: counts and a sample of its changes.")
@sync_arguments
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Keep the plan here, for `rundiff apply`."
)
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 0 for no changes, 1 for an error, 2 for changes."
)
@click.pass_obj
def plan_command(
    invocation: Invocation,
    /,
    targets: Sequence[str],
    *,
    out: Path | None,
    detailed_exitcode: bool,
    **given: Any,
) -> int:
    """Preview a sync: counts and a sample of its changes. Nothing is delivered, no state is changed.

    Takes the same arguments as `rundiff sync`.
    """
    settings = chosen(invocation, targets, given)
    if out is not None and len(settings) != 1:
        raise ConfigurationError("--out keeps one plan: name one sync.")
    outcomes = perform(invocation, [_plan_job(each, out) for each in settings])
    code = combined([outcome.code for outcome in outcomes])
    if not detailed_exitcode:
        return code
    if code:
        return 1
    return 2 if any(map(_changes_something, outcomes)) else 0


@click.command("apply", short_help="Deliver exactly what a plan holds.")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="The sync of rundiff.toml that knows the destination's secrets.")
@common_options(quiet=True)
@click.pass_obj
def apply_command(invocation: Invocation, path: Path, name: str | None) -> int:
    """Deliver exactly what a plan holds, if nothing has changed since it was made.

    A plan holds no secrets: where the destination needs some, --name gives the sync of rundiff.toml
    that has them.
    """
    settings = invocation.project.settings(name) if name else None
    job = Job(
        name or path.name,
        lambda workspace, hook: workspace.apply(path, settings, hook),
        to_stdout=None,
    )
    return combined([outcome.code for outcome in perform(invocation, [job])])


def chosen(invocation: Invocation, targets: Sequence[str], given: Mapping[str, Any]) -> list[SyncSettings]:
    """Find the syncs that the arguments ask for: one at once, or some of the project's.

    Raises:
        ConfigurationError: the arguments contradict one another, or name a sync that isn't there.
    """
    options = given_options(given)
    if given["key"] or given["to"]:
        return [_at_once(targets, given, options)]
    for flag in ("into", "name"):
        if given[flag]:
            raise ConfigurationError(
                f"--{flag} goes with --key and --to; for a sync of rundiff.toml it is a key."
            )
    project = invocation.project
    patterns = parts(given["select"])
    unmatched = [p for p in patterns if not any(fnmatchcase(name, p) for name in project.syncs)]
    if unmatched:
        raise ConfigurationError(f"--select {unmatched[0]} matches no sync of rundiff.toml.")
    wanted = list(dict.fromkeys(targets))
    if patterns:
        pool = wanted or project.syncs
        wanted = [name for name in pool if any(fnmatchcase(name, pattern) for pattern in patterns)]
    elif not wanted:
        wanted = list(project.syncs)
    if not wanted:
        raise ConfigurationError(
            "There is nothing to sync: give a source with --key and --to, "
            "or write syncs into rundiff.toml (`rundiff init` makes one)."
        )
    return [project.settings(name, options) for name in wanted]


def _at_once(targets: Sequence[str], given: Mapping[str, Any], options: Mapping[str, Any]) -> SyncSettings:
    if given["select"]:
        raise ConfigurationError(
            "--select chooses among the syncs of rundiff.toml: leave out --key and --to."
        )
    if len(targets) != 1:
        raise ConfigurationError(
            "--key and --to go with exactly one SOURCE; quote a glob, so that the shell leaves it alone."
        )
    for flag in ("key", "to"):
        if not given[flag]:
            raise ConfigurationError(f"A sync without rundiff.toml needs --{flag} too.")
    return ad_hoc(targets[0], given["key"], given["to"], given["into"], given["name"], options)


def _sync_job(settings: SyncSettings) -> Job:
    return Job(
        settings.name,
        lambda workspace, hook: workspace.run(settings, hook),
        to_stdout=settings.destination.url == "-",
    )


def _plan_job(settings: SyncSettings, out: Path | None) -> Job:
    return Job(
        settings.name,
        lambda workspace, hook: workspace.plan(settings, out, hook),
        to_stdout=settings.destination.url == "-",
    )


def _changes_something(outcome: Outcome) -> bool:
    plan = outcome.plan
    return plan is not None and bool(plan.changes or plan.result.counts.deletes_held)
