"""From findings and states to what people and programs are told."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from rundiff.engine.changeset import Findings
from rundiff.model import BaselineState, Counts, RunKind, RunResult, RunStatus, Scope

__all__ = ["details_of", "failed_result", "planned_result", "result_from_json", "result_of"]


def planned_result(findings: Findings, seconds: float) -> RunResult:
    """What a run would do, before guards split the deletions off."""
    counts = dict(findings.counts)
    if findings.hold_deletions is not None:
        counts["deletes_held"], counts["deleted"] = counts["deleted"], 0
    return RunResult(
        sync=findings.name,
        run=None,
        status=RunStatus.PLANNED,
        baseline=BaselineState(findings.baseline),
        scope=Scope(findings.scope),
        complete=findings.complete,
        counts=Counts(**counts),
        seconds=seconds,
        warnings=findings.warnings,
        held_reason=findings.hold_run or findings.hold_deletions,
    )


def result_of(
    findings: Findings,
    run: tuple[int, RunKind, RunStatus],
    *,
    delivered: tuple[int, int] = (0, 0),
    seconds: float = 0.0,
    warnings: tuple[str, ...] = (),
    error: str | None = None,
) -> RunResult:
    """Tell what a (number, kind, status) run did; `delivered` is (written, refused)."""
    number, kind, status = run
    planned = planned_result(findings, seconds)
    return replace(
        planned,
        run=number,
        kind=kind,
        status=status,
        counts=replace(planned.counts, written=delivered[0], failed=delivered[1] + len(findings.aside)),
        warnings=(*findings.warnings, *warnings),
        error=error,
    )


def failed_result(sync: str, run: tuple[int | None, RunKind], error: str, seconds: float) -> RunResult:
    """Tell of a run that failed before it found anything."""
    return RunResult(
        sync=sync, run=run[0], kind=run[1], status=RunStatus.FAILED, seconds=seconds, error=error
    )


def details_of(findings: Findings, **more: Any) -> dict[str, Any]:
    """Give what the database keeps of a run beside its result."""
    return {
        "reasons": list(findings.reasons),
        "samples": {kind: list(texts) for kind, texts in findings.samples.items()},
        "signer": findings.signer,
        "held_reason": findings.hold_run or findings.hold_deletions,
        "pending": findings.misses,
        "drift": list(findings.drift),
        **more,
    }


def result_from_json(stored: dict[str, Any], held_reason: str | None = None) -> RunResult:
    """Read a stored result back."""
    names = Counts.__struct_fields__
    return RunResult(
        sync=stored["sync"],
        run=stored["run"],
        kind=RunKind(stored["kind"]),
        status=RunStatus(stored["status"]),
        baseline=BaselineState(stored["baseline"]),
        scope=Scope(stored["scope"]),
        complete=stored["complete"],
        counts=Counts(**{name: stored[name] for name in names}),
        seconds=stored["seconds"],
        warnings=tuple(stored["warnings"]),
        error=stored["error"],
        held_reason=held_reason,
    )
