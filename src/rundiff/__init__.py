"""Rundiff finds what changed in a source since the last run, and delivers only that."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rundiff.errors import (
    BaselineLost,
    ConfigurationError,
    DestinationError,
    DestinationLost,
    Fenced,
    KeyFieldMissing,
    MissingDriver,
    PolicyViolation,
    RecordsRefused,
    RundiffError,
    SourceError,
    StateChanged,
    StorageError,
    SyncBusy,
    SyncMismatch,
)

if TYPE_CHECKING:
    from rundiff.api import Sync, changes, sync
    from rundiff.joined import Run
    from rundiff.model import RunResult, SyncWriteRecord
    from rundiff.signing import signature

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
    "Run",
    "RunResult",
    "RundiffError",
    "SourceError",
    "StateChanged",
    "StorageError",
    "Sync",
    "SyncBusy",
    "SyncMismatch",
    "SyncWriteRecord",
    "changes",
    "signature",
    "sync",
]

_LAZY = {
    "Run": "rundiff.joined",
    "RunResult": "rundiff.model",
    "Sync": "rundiff.api",
    "SyncWriteRecord": "rundiff.model",
    "changes": "rundiff.api",
    "signature": "rundiff.signing",
    "sync": "rundiff.api",
}
"""Imported at first use, so that the command can show its help without loading Arrow."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
