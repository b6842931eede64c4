"""Refusals before anything is written: destinations that can't take the changes, guards that are set to fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pyarrow as pa

from rundiff.compare.guards import Verdict
from rundiff.destinations.contract import Destination, Renaming, Target
from rundiff.engine.log import read_log
from rundiff.engine.reading import SAMPLES, key_texts
from rundiff.engine.records import values
from rundiff.errors import DestinationError, PolicyViolation
from rundiff.settings import SyncSettings

__all__ = ["refuse_guarded", "refuse_unfit", "refuse_unready"]


def refuse_guarded(settings: SyncSettings, verdict: Verdict, deletes: Path) -> None:
    """Fail the run where a guard met its case and is set to; raises `PolicyViolation`."""
    reason = verdict.hold_run or verdict.hold_deletions
    if reason is None or settings.guards.on_guard != "fail":
        return
    keys = ""
    if verdict.hold_deletions is not None and deletes.exists():
        sample = values(next(read_log(deletes, SAMPLES, ["primary_key"])).column(0))
        keys = f" Among what would go: {'; '.join(key_texts(sample))}."
    raise PolicyViolation(
        f"sync {settings.name}: {reason}; on_guard is fail. Nothing was written.{keys} Mend the source, "
        "or run with --on-guard hold_deletes to look at the changes and approve them"
    )


def refuse_unfit(
    destination: Destination,
    target: Target,
    names: Mapping[str, str],
    fields: Mapping[str, pa.DataType] | None,
) -> None:
    """Check that the destination takes the fields, and that columns can get other names; raises `DestinationError`.

    `names` are given by the former ones; no `fields` where no record is written.
    """
    if names and destination.capabilities.renames:
        cast("Renaming", destination).check_renames(target, names, fields)
    elif fields is not None:
        destination.check(target, fields)


def refuse_unready(destination: Destination, target: Target) -> None:
    """Check a destination before anything is read; its errors name the sync."""
    try:
        destination.check(target, None)
    except DestinationError as error:
        raise type(error)(f"sync {target.sync}: {error}") from error
