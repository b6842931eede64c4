"""Baselines that are lost: why, whether the write log brings them back, and what is said of it."""

from __future__ import annotations

import msgspec

from rundiff.destinations.contract import Destination, Target
from rundiff.errors import BaselineLost

__all__ = ["Lost", "refusal", "unknown_run", "unknown_writers"]


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Why a baseline can't be used."""

    reason: str
    """Half a sentence."""
    rebuildable: bool = True
    """Whether this database has the write log to make it anew from: not where the database itself was
    lost, replaced or restored from an older copy."""

    @classmethod
    def told_by(cls, error: BaselineLost) -> Lost:
        """Take over what an error says."""
        return cls(reason=str(error), rebuildable=error.rebuildable)


def refusal(name: str, lost: Lost | None, destination: Destination, *, known: bool = True) -> BaselineLost:
    """Give the error of a sync that does not run without its baseline, with what can be done.

    `known`: this database has runs of the sync, so that it must be reset before a table is adopted.
    """
    lost, can = lost or Lost(reason="unknown"), destination.capabilities
    ways = [f"use `rundiff rebuild {name}` to make it anew from the write log"] if lost.rebuildable else []
    if can.reads_back:
        first = f"`rundiff reset {name}`, then " if known else ""
        ways.append(
            f"start from what the destination holds: {first}`rundiff adopt --from-destination`, with the arguments of "
            "`rundiff sync`"
        )
    policies = "rebaseline (take the source as what the destination holds)"
    if can.upserts:
        policies += " or resend (write all records again)"
    ways.append(f"run with --on-lost-baseline {policies}")
    return BaselineLost(
        f"sync {name}: the baseline is lost: {lost.reason}. Nothing was written. "
        + "; or ".join(ways)[0].upper()
        + "; or ".join(ways)[1:],
        rebuildable=lost.rebuildable,
    )


def unknown_writers(
    destination: Destination, target: Target, known: set[str], *, shared: bool
) -> Lost | None:
    """Say why a first run is not first: the destination carries marks of a sync that nobody knows."""
    if shared:
        return None
    unknown = [sync_id for sync_id in destination.strangers(target) if sync_id not in known]
    if not unknown:
        return None
    return Lost(
        reason=f"the destination {destination.identity} was written by a sync that this database does not know "
        f"({', '.join(unknown)}): its home directory was lost or replaced",
        rebuildable=False,
    )


def unknown_run(destination: Destination, run: int) -> Lost:
    """Say that a destination stands at a run that the database never delivered."""
    return Lost(
        reason=f"the destination {destination.identity} stands at run {run}, which this database does not know: "
        "the database was restored from an older copy",
        rebuildable=False,
    )
