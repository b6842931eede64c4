"""What a reading proves: whether it met all that the source holds, and what it met beside good records."""

from __future__ import annotations

from rundiff.baseline.manifest import Manifest
from rundiff.compare.marks import named_fields
from rundiff.engine.lost import Lost
from rundiff.engine.partitions import partition_name
from rundiff.engine.reading import Read
from rundiff.engine.watching import Watch
from rundiff.model import Scope
from rundiff.settings import SyncSettings
from rundiff.sources.contract import Source

__all__ = ["incomplete_reasons", "odd_words"]


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
        reasons.append("standard input may have been cut off; --expected-rows would prove that it was not")
    sentinel = settings.guards.sentinel
    if sentinel and scope is Scope.FULL and not read.watched.sentinel:
        reasons.append(f"the sentinel record {partition_name(sentinel)} was not read")
    if manifest is not None and read.invalid_keys > manifest.invalid_keys:
        reasons.append(
            f"{read.invalid_keys:,} records had no valid key, more than the {manifest.invalid_keys:,} of "
            "the last complete run"
        )
    return reasons


def odd_words(read: Read, watch: Watch | None, settings: SyncSettings, lost: Lost | None) -> list[str]:
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
    if lost is not None:
        policy = settings.policies.on_lost_baseline
        warnings.append(f"the baseline was lost ({lost.reason}); on_lost_baseline = {policy}")
    return warnings
