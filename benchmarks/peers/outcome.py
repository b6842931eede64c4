"""The one line that every measured script prints last, and the arguments that it takes.

The scripts need their own libraries and nothing of Rundiff or of the rest of this package, so each may
be run by the Python of another environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Job", "Outcome", "job", "state"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a script is to do: its four arguments."""

    variant: str
    phase: str
    """`first` takes the old extract, `second` the new one, `limit` the old one."""
    old: str
    new: str
    folder: str
    """Where it keeps what a second run needs; a copy of what its first run left."""

    @property
    def source(self) -> str:
        """The extract that this run is given."""
        return self.new if self.phase == "second" else self.old


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a script found, and how long its work took."""

    seconds: float
    """Without the start of Python and imports."""
    created: int | None = None
    """Counts are None where the peer doesn't know them; its table is then checked instead."""
    updated: int | None = None
    deleted: int | None = None
    not_counted: float = 0.0
    """Seconds of the process that are no part of the work: the start of a server."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Further measurements by name, with the unit in the name."""


def job() -> Job:
    """Read the arguments VARIANT PHASE OLD NEW FOLDER."""
    return Job(*sys.argv[1:6])


def state(outcome: Outcome) -> None:
    """Print the outcome as one line of JSON."""
    counts = {name: getattr(outcome, name) for name in ("created", "updated", "deleted")}
    line = {
        **counts,
        "seconds": outcome.seconds,
        "not_counted": outcome.not_counted,
        "figures": dict(outcome.figures),
    }
    sys.stdout.write(json.dumps(line) + "\n")
