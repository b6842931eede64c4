"""What became of a baseline that a Redis or Valkey no longer has, as far as the server can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Loss", "reason"]


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in place of a baseline."""

    manifest: str
    """The manifest that the database names."""
    pointer: str | None
    """The one that the store names."""
    of_sync: bool
    """Whether the store holds anything of the sync."""
    of_anyone: bool
    """Whether it holds anything under the prefix."""
    since: datetime | None
    """When the baseline was last touched."""
    seconds: float
    """For how long it was then to be kept."""
    now: datetime
    """By the server's clock."""


def reason(nodes: Sequence[Mapping[str, Any]], loss: Loss) -> str:
    """Give half a sentence; `nodes` are their INFO sections server, stats, memory and replication."""
    age = None if loss.since is None else (loss.now - loss.since).total_seconds()
    uptime = min(float(node.get("uptime_in_seconds", 0)) for node in nodes)
    evicted = sum(int(node.get("evicted_keys", 0)) for node in nodes)
    if loss.pointer is not None and loss.pointer[:17] < loss.manifest[:17]:
        return (
            f"the signature store is older than it should be: it ends with {loss.pointer[:17]}, and the last run left "
            f"{loss.manifest[:17]}; it was restored from an older copy, or failed over to a replica that was behind"
        )
    if age is not None and age > loss.seconds:
        return f"it has expired: it was kept for {_days(loss.seconds)} after the last run, which was {_days(age)} ago"
    if evicted:
        policies = sorted({str(node.get("maxmemory_policy")) for node in nodes})
        return (
            f"the server has evicted it: its memory was full, its maxmemory-policy is {', '.join(policies)}, and it "
            f"has dropped {evicted:,} keys since its start"
        )
    if age is not None and uptime < age and not loss.of_sync:
        return (
            f"the server was started again {_minutes(uptime)} ago and came up without it: it keeps nothing over a "
            "restart, or it was restored from an older copy"
        )
    if not loss.of_anyone:
        return "the server was flushed, or is another one: it holds nothing of Rundiff under this database and prefix"
    if any(_failed_over(node) for node in nodes):
        return "the server has failed over to a replica that did not have it"
    return "someone removed it, or the server was restored from an older copy"


def _failed_over(node: Mapping[str, Any]) -> bool:
    return int(node.get("second_repl_offset", -1)) >= 0


def _days(seconds: float) -> str:
    days = seconds / 86_400
    if days >= 1:
        return f"{days:.3g} days"
    return _minutes(seconds)


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
