"""What a reading proves: whether it met all that the source holds, and what it met beside good records."""

from __future__ import annotations

from collections.abc import Sequence

from rundiff.baseline.manifest import Manifest
from rundiff.compare.marks import named_fields
from rundiff.engine.lost import Lost
from rundiff.engine.partitions import partition_name
from rundiff.engine.reading import Read
from rundiff.engine.watching import Watch
from rundiff.model import BaselineState, Scope
from rundiff.settings import SyncSettings
from rundiff.sources.contract import Source

__all__ = ["incomplete_reasons", "incomplete_words", "odd_words"]

_NO_END = "standard input may have been cut off; --expected-rows would prove that it was not"


def incomplete_reasons(
    read: Read, settings: SyncSettings, source: Source, manifest: Manifest | None, scope: Scope
) -> list[str]:
    """Say why the reading is no proof that a record is gone."""
    reasons = list(read.end.incomplete)
    if read.unreadable:
        reasons.append(
            "1 record was unreadable"
            if read.unreadable == 1
            else f"{read.unreadable:,} records were unreadable"
        )
    expected = settings.reading.expected_rows
    if expected is not None and read.records != expected:
        reasons.append(f"{read.records:,} records were read, but {expected:,} were expected")
    if expected is None and not source.may_delete_without_count:
        reasons.append(_NO_END)
    sentinel = settings.guards.sentinel
    if sentinel and scope is Scope.FULL and not read.watched.sentinel:
        reasons.append(f"the sentinel record {partition_name(sentinel)} was not read")
    if words := _keyless_words(read.invalid_keys, settings.guards.max_invalid_keys, manifest):
        reasons.append(words)
    return reasons


def _keyless_words(count: int, most: int | None, manifest: Manifest | None) -> str | None:
    """Say why so many records without a valid key are no proof: any of them may be one that the baseline knows."""
    words = f"{count:,} record{'s' * (count > 1)} had no valid key, more than "
    if most is not None:
        return f"{words}max_invalid_keys, which is {most:,}" if count > most else None
    if manifest is None or count <= manifest.invalid_keys:
        return None
    before = f"the {manifest.invalid_keys:,} of the last complete run"
    return f"{words}{before}; --max-invalid-keys {count} would let them be"


def incomplete_words(reasons: Sequence[str], state: BaselineState) -> list[str]:
    """Tell why the reading counts as incomplete, and what follows."""
    if state is BaselineState.FOUND and reasons:
        return ["the reading was not complete, so nothing is deleted: " + "; ".join(reasons)]
    # Where there is nothing to delete yet, a stream whose end can't be proved is as good as any.
    telling = [reason for reason in reasons if reason != _NO_END]
    return ["the reading was not complete: " + "; ".join(telling)] if telling else []


def odd_words(
    read: Read, watch: Watch | None, settings: SyncSettings, manifest: Manifest | None, lost: Lost | None
) -> list[str]:
    """Tell of what the reading met beside good records."""
    warnings = []
    named = [] if watch is None else [watch.cursor] if watch.cursor else []
    if watch is not None and watch.deleted_when is not None:
        named += named_fields(watch.deleted_when)
    missing = [name for name in named if name not in read.fields]
    if missing and read.fields:
        warnings.append(
            f"the source has no field {', '.join(missing)}, which deleted_when or cursor names: no record is "
            "taken for one that has it"
        )
    if read.invalid_keys:
        warnings.append(
            f"{read.invalid_keys:,} record{'s' * (read.invalid_keys > 1)} without a valid key skipped: "
            + "; ".join(read.samples["invalid_keys"])
        )
    unfit = (
        []
        if manifest is None
        else [name for name in read.misfits if name in manifest.pins and name not in manifest.accepted]
    )
    if unfit:
        warnings.append(_misfit_words(unfit, settings))
    if lost is not None:
        policy = settings.policies.on_lost_baseline
        warnings.append(f"the baseline was lost ({lost.reason}); on_lost_baseline = {policy}")
    return warnings


def _misfit_words(names: Sequence[str], settings: SyncSettings) -> str:
    several = len(names) > 1
    words = f"values of {', '.join(names)} do not fit the type{'s' * several} of the last run"
    if any(name in settings.primary_key for name in names):
        return (
            f"{words}. Records are known by the primary key, so its types can't change: mend the source, start another "
            f"sync with --name, or this one anew with `rundiff reset {settings.name}`"
        )
    return f"{words}; if the source is right, `rundiff schema accept {settings.name}` lets the next full run take them"
