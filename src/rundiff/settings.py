"""Frozen options, one value per concern; `rundiff.toml`, environment and flags end here.

The names of the fields are the keys of a sync in `rundiff.toml`, the keyword arguments of
`rundiff.sync`, and, with dashes, the flags of the command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

__all__ = [
    "DEFAULT_EXCLUDE",
    "Comparison",
    "DestinationOptions",
    "Guards",
    "Policies",
    "SourceOptions",
    "Storage",
    "SyncSettings",
    "without_secrets",
]

DEFAULT_EXCLUDE = (
    "created_at",
    "updated_at",
    "_dlt_*",
    "_sdc_*",
    "_airbyte_*",
    "_fivetran_*",
    "_rundiff_*",
)
"""Fields that are not compared unless `exclude` or `include` say otherwise; matched in any case."""


def without_secrets(url: str) -> str:
    """Give a URL without its password and without options, which may hold one, for messages and pages."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    place = rest.partition("?")[0]
    host, slash, path = place.partition("/")
    # A password may hold "/" or "@" unescaped, by mistake: whatever stands before the last @ is the login.
    if "@" in place:
        login, _, after = place.rpartition("@")
        host, slash, path = after.partition("/")
        user = login.partition(":")[0]
        host = f"{user}@{host}" if user else host
    return f"{scheme}://{host}{slash}{path}"


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to read the source where guessing is not wanted."""

    types: Mapping[str, str] = {}
    """Pinned types by field: `{"zip": "text"}`."""
    delimiter: str | None = None
    encoding: str | None = None
    null: tuple[str, ...] = ()
    """Further spellings of null in text sources, beside the empty unquoted field."""
    expected_rows: int | None = None
    """How many records the source states to have; deletions need the count to be met."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Which fields are compared, and how they are brought to one form before signing."""

    exclude: tuple[str, ...] = DEFAULT_EXCLUDE
    """Globs of fields that are not compared (matched in any case)."""
    include: tuple[str, ...] = ()
    """Globs of the only fields to compare; empty means all. A match wins over the default excludes."""


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that hold a run's deletions, or the whole run, until a person approves."""

    max_deletes: int | None = None
    """Hold the deletions when there are more than this."""
    max_delete_percent: float | None = None
    """Hold the deletions when they pass this share of the baseline; unset: 10 % reached, from 100 records."""
    min_records: int | None = None
    """Hold the deletions when fewer records were read."""
    max_updates_percent: float | None = None
    """Hold the whole run when updates pass this share of the baseline."""
    max_creates_percent: float | None = None
    """Hold the whole run when creates pass this share of the baseline."""
    allow_empty: bool = False
    """Let an empty extract delete everything."""


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What to do in the cases that a source or a crash may bring."""

    on_invalid_key: Literal["skip", "quarantine", "fail"] = "skip"
    on_conflict: str | Callable[[list[dict[str, Any]]], dict[str, Any]] = "last"
    """`last`, `first`, `max:FIELD`, `min:FIELD`, `fail`, `quarantine`, or a Python function."""
    on_lost_baseline: Literal["fail", "rebaseline", "resend"] = "fail"
    on_existing: Literal["overwrite", "keep", "fail"] = "overwrite"
    on_new_field: Literal["update", "fail"] = "update"
    on_dropped_field: Literal["update", "fail"] = "fail"


class DestinationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where changes go."""

    url: str | None = None
    """None: the caller delivers (`rundiff.changes`)."""
    into: str | None = None
    """The table, optionally with its schema."""
    shared_table: bool = False
    mode: Literal["mirror", "soft_delete", "append", "history"] = "mirror"
    """What a table keeps of changed and deleted rows."""


class SyncSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one sync is asked to do."""

    name: str
    source: Any
    """A path, a glob, `-`, an iterable of mappings, or an object of the Arrow PyCapsule interface."""
    primary_key: tuple[str, ...]
    destination: DestinationOptions = DestinationOptions()
    reading: SourceOptions = SourceOptions()
    comparison: Comparison = Comparison()
    guards: Guards = Guards()
    policies: Policies = Policies()
    full_refresh: bool = False
    batch_size: int = 50_000
    """Write records in one batch of delivery."""
    max_failures: int = 1_000
    """Stop the delivery when more write records than this are refused or have no known outcome."""
    wait: bool = False
    """Wait for another run of the same sync instead of giving up."""
    named: bool = True
    """False when the name was derived from the source, which is then part of the sync's identity."""


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Where Rundiff keeps its state."""

    home: str = ".rundiff"
    signing_key: bytes | None = None
    """The secret for HMAC signatures; never stored, logged or printed."""
    retention_days: float = 7.0
    database: str | None = None
    """The URL of the database; None: the home directory. It may hold a password: never stored or printed."""
    signatures: str | None = None
    """The URL of the signature store; None: the home directory. It may hold a password, too."""

    def __repr__(self) -> str:
        return f"Storage(home={self.home!r})"
