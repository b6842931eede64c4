"""Every error that Rundiff raises on purpose, sorted by what the caller can do next.

RundiffError                     the root; the command exits 1
├── ConfigurationError           mend the command, the settings or rundiff.toml; exits 2
│   ├── SyncMismatch             the sync is stored with another key or destination: another name, or reset
│   └── MissingDriver            install the extra that the message names
├── SourceError                  mend the source, then run again; nothing was written
│   └── KeyFieldMissing          the source lacks a field of the primary key
├── BaselineLost                 choose: rebuild, or a policy of on_lost_baseline
├── DestinationError             the destination failed: run again, delivery goes on where it stopped
│   ├── DestinationLost          the destination is not what the last run left: --full-refresh
│   ├── RecordsRefused           the destination refuses some records of a batch: set them aside
│   └── Fenced                   another worker took over: stop
├── PolicyViolation              a policy set to "fail" met its case; nothing was written
├── StorageError                 the home directory can't be read or written: mend it, run again
├── StateChanged                 the plan or the held set is not the one that was shown: look again
└── SyncBusy                     another run holds the sync: wait; exits 5
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rundiff.model import RunResult

__all__ = [
    "BaselineLost",
    "ConfigurationError",
    "DestinationError",
    "DestinationLost",
    "Fenced",
    "KeyFieldMissing",
    "MissingDriver",
    "PolicyViolation",
    "RecordsRefused",
    "RundiffError",
    "SourceError",
    "StateChanged",
    "StorageError",
    "SyncBusy",
    "SyncMismatch",
]


class RundiffError(Exception):
    """The root of all errors of Rundiff.

    The message says what happened, to which sync, run or record, and what to do next.
    """

    exit_code = 1
    result: RunResult | None = None
    """The result of the run that failed, where one had begun."""


class ConfigurationError(RundiffError):
    """The command, an option or `rundiff.toml` can't be used as it is."""

    exit_code = 2


class SyncMismatch(ConfigurationError):
    """A run came with another primary key or destination than the sync is stored with."""


class MissingDriver(ConfigurationError):
    """A backend needs a package that is not installed."""


class SourceError(RundiffError):
    """The source can't be read, or is broken in a way that no record can be trusted."""


class KeyFieldMissing(SourceError):
    """The source has no such field as the primary key names."""


class BaselineLost(RundiffError):
    """The baseline that the database names is missing, damaged or older than it says."""

    def __init__(self, message: str, *, rebuildable: bool = True) -> None:
        super().__init__(message)
        self.rebuildable = rebuildable
        """Whether `rundiff rebuild` can make it anew: the database that is open has its write log."""


class DestinationError(RundiffError):
    """The destination can't be reached or written; what was delivered stays delivered."""


class DestinationLost(DestinationError):
    """The destination's watermark is missing or older than the last acknowledged position."""


class RecordsRefused(DestinationError):
    """The destination refused a batch because of its data; nothing of the batch was written."""


class Fenced(DestinationError):
    """A newer run holds the sync; this one may not write any more."""


class PolicyViolation(RundiffError):
    """A policy that is set to `fail` met the case that it names."""

    fields: tuple[str, ...] = ()
    """The fields that it is about, if any: `rundiff schema accept` takes them as they are."""


class StorageError(RundiffError):
    """Files of the home directory can't be read or written."""


class StateChanged(RundiffError):
    """What should be applied or approved is no longer what was shown."""


class SyncBusy(RundiffError):
    """Another run of the same sync is under way."""

    exit_code = 5
