"""Run one sync or several, tell of each, and find the command's exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

import msgspec
from msgspec.structs import replace

from rundiff.cli.invocation import Invocation
from rundiff.cli.progress import follow
from rundiff.engine.views import Plan, Progress, RunView, SyncView
from rundiff.errors import RundiffError
from rundiff.model import RunKind, RunResult, RunStatus

if TYPE_CHECKING:
    from rundiff.engine.workspace import Workspace

__all__ = ["Job", "Outcome", "combined", "exit_code", "perform"]

Hook = Callable[[Progress], None]

WORST_FIRST = (1, 2, 4, 3, 5)
"""Of several syncs' codes the first one here is the command's."""
STOPS = frozenset({1, 2, 5})
"""Codes of syncs that did not do their work, at which --fail-fast stops."""


class Job(msgspec.Struct, frozen=True):
    """One piece of work on one sync."""

    name: str
    work: Callable[[Workspace, Hook | None], RunResult | Plan]
    to_stdout: bool | None = False
    """Its destination is standard output, so everything else goes to standard error; None: ask the sync."""
    kind: RunKind = RunKind.SYNC


class Outcome(msgspec.Struct, frozen=True):
    """What became of a job."""

    result: RunResult
    code: int
    plan: Plan | None = None
    details: tuple[SyncView, RunView] | None = None
    """What the summary tells beside the counts; None where there is nothing to add."""


def exit_code(result: RunResult) -> int:
    """Give the exit code of one sync that did not raise (design section 7)."""
    counts = result.counts
    if result.status is RunStatus.PLANNED:
        return 0
    if result.status is RunStatus.FAILED:
        return 1
    if counts.failed or counts.unreadable:
        return 4
    return 3 if result.status is RunStatus.HELD or counts.deletes_held else 0


def combined(codes: Sequence[int]) -> int:
    """Give the exit code of several syncs."""
    return next((code for code in WORST_FIRST if code in codes), 0)


def perform(invocation: Invocation, jobs: Sequence[Job], *, fail_fast: bool = False) -> list[Outcome]:
    """Do all jobs, one after the other; a failed one doesn't stop the others unless asked to."""
    outcomes: list[Outcome] = []
    aside = any(job.to_stdout for job in jobs)
    try:
        with invocation.workspace() as workspace:
            for job in jobs:
                outcome = _one(invocation, workspace, job, alone=len(jobs) == 1)
                outcomes.append(outcome)
                aside = aside or (job.to_stdout is None and _is_stream(workspace, outcome.result.sync))
                if invocation.as_json:
                    _print_json(invocation, outcome, sys.stderr if aside else sys.stdout)
                if fail_fast and outcome.code in STOPS:
                    break
    finally:
        # What was done is told even when the next sync was interrupted.
        if outcomes and not invocation.as_json and not invocation.quiet:
            _print_summary(invocation, outcomes, sys.stderr if aside else sys.stdout)
    left = [job.name for job in jobs[len(outcomes) :]]
    if left and not invocation.quiet:
        invocation.complain(f"not run, because of --fail-fast: {', '.join(left)}.")
    return outcomes


def _is_stream(workspace: Workspace, name: str) -> bool:
    return any(view.name == name and view.destination == "-" for view in workspace.syncs())


def _one(invocation: Invocation, workspace: Workspace, job: Job, *, alone: bool) -> Outcome:
    # A bar among the lines of the change stream would spoil both.
    hidden = invocation.quiet or (bool(job.to_stdout) and sys.stdout.isatty())
    try:
        with follow(job.name, quiet=hidden) as hook:
            done = job.work(workspace, hook)
    except BrokenPipeError:
        raise
    except RundiffError as error:
        return _failed(invocation, job, error, str(error), alone=alone)
    except Exception as error:  # noqa: BLE001 - one sync's unforeseen error must not stop the others
        return _failed(invocation, job, error, invocation.unexpected(error), alone=alone)
    if isinstance(done, Plan):
        return Outcome(done.result, 0, plan=done)
    return Outcome(done, exit_code(done), details=_details(invocation, workspace, done))


def _failed(invocation: Invocation, job: Job, error: Exception, sentence: str, *, alone: bool) -> Outcome:
    if invocation.debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    # With --json and the change stream on standard output, standard error holds the objects alone.
    if not (invocation.as_json and job.to_stdout):
        invocation.complain(sentence if alone else f"{job.name}: {sentence}")
    carried = getattr(error, "result", None)
    if isinstance(carried, RunResult):
        result = replace(carried, status=RunStatus.FAILED, error=carried.error or sentence)
    else:
        result = RunResult(sync=job.name, run=None, kind=job.kind, status=RunStatus.FAILED, error=sentence)
    return Outcome(result, error.exit_code if isinstance(error, RundiffError) else 1)


def _details(
    invocation: Invocation, workspace: Workspace, result: RunResult
) -> tuple[SyncView, RunView] | None:
    """Fetch samples and the held set, where there are any and somebody will read them."""
    counts = result.counts
    odd = counts.deletes_held or counts.unreadable or counts.invalid_keys or counts.conflicts or counts.failed
    if invocation.as_json or invocation.quiet or result.run is None:
        return None
    if not odd and result.status is not RunStatus.HELD:
        return None
    try:
        return workspace.show(result.sync, result.run)
    except RundiffError:
        # The run is over and done; what only adorns its summary must not make it look failed.
        return None


def _print_json(invocation: Invocation, outcome: Outcome, stream: TextIO) -> None:
    from rundiff.cli.objects import plan_object, result_object

    described = plan_object(outcome.plan) if outcome.plan else result_object(outcome.result)
    invocation.json([described], stream)


def _print_summary(invocation: Invocation, outcomes: Sequence[Outcome], stream: TextIO) -> None:
    from rundiff.cli.render_plan import plan_text
    from rundiff.cli.render_runs import summary

    for outcome in outcomes:
        if outcome.plan:
            # A plan keeps no secrets, so the project has to bring them back.
            secret = invocation.project.destination_mentions_variables(outcome.result.sync)
            tail = f" --name {shlex.quote(outcome.result.sync)}" if secret else ""
            text = plan_text(outcome.plan, invocation.masked, tail + invocation.home_flag)
            invocation.show(text, stream)
    finished = [(outcome.result, outcome.details) for outcome in outcomes if outcome.plan is None]
    # One sync that failed before it delivered anything has said everything by its error.
    if len(finished) > 1 or any(r.status is not RunStatus.FAILED or r.counts.written for r, _ in finished):
        invocation.show(summary(finished, invocation.masked, invocation.home_flag), stream)
