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
    "PARTICULAR",
    "Comparison",
    "DestinationOptions",
    "Guards",
    "PartitionGuards",
    "Policies",
    "Scoping",
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

PARTICULAR = ("http_", "csv_", "kafka_")
"""What the options begin with that only one kind of destination knows."""
_SECRET = ("http_headers", "kafka_options")


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
    table: str | None = None
    """The table of a database, optionally with its schema."""
    query: str | None = None
    """What a database is asked for in place of a table. It may hold secrets: never stored or printed."""
    count_rows: bool = True
    """Count a database's rows in the snapshot that is read; deletions need the count to be met."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Which fields are compared, and how they are brought to one form before signing."""

    exclude: tuple[str, ...] = DEFAULT_EXCLUDE
    """Globs of fields, and paths into nested ones, that are not compared (matched in any case)."""
    include: tuple[str, ...] = ()
    """Globs of the only fields to compare, and paths; empty means all. A match wins over the default excludes."""
    normalize: Mapping[str, Any] = {}
    """Normalisers by field or path, applied before signing: `{"lat": "round(4)"}`; or Python functions."""
    field_signatures: bool = False
    """Keep a short signature of each compared field, so that `changed_fields` needs no former record."""


class Scoping(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the source a run reads, and hence which keys it may miss."""

    scope: Literal["full", "incremental", "partition"] | None = None
    """Unset: `partition` where one of the next three is given, else `full`."""
    partition: Mapping[str, Any] = {}
    """The partition that is read, by field: `{"region": "EU"}`, or a list of values."""
    partition_by: tuple[str, ...] = ()
    """The fields that hold a record's parent; a partition run covers the parents that it saw."""
    partitions: tuple[Any, ...] = ()
    """The parents that are read instead: values of the one field of `partition_by`, or tables of all."""
    cursor: str | None = None
    """The field whose highest value is kept, and offered to the source of an incremental run."""
    full_every: str | None = None
    """Make a run a full one where the last complete full run is older: `24h`, `7d`, `2w`."""


class PartitionGuards(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `partition_guards` may hold: limits of each partition by itself; None: as for the whole."""

    max_deletes: int | None = None
    max_delete_percent: float | None = None
    min_records: int | None = None
    max_updates_percent: float | None = None
    max_creates_percent: float | None = None
    allow_empty: bool | None = None


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
    partition_guards: Mapping[str, Any] = {}
    """Limits of each partition by itself, of whatever size: `{"max_delete_percent": 25}`."""
    max_drop_percent: float | None = None
    """Hold the deletions when fewer records were read than the usual number, less this share of it."""
    sentinel: Mapping[str, Any] = {}
    """A record that the source always has, by some of its fields; nothing is deleted unless it was read."""
    max_invalid_keys: int | None = None
    """Nothing is deleted when more records have no valid key; unset: than in the last complete run."""
    on_guard: Literal["hold_deletes", "hold_run", "fail"] = "hold_deletes"
    """What a guard on deletions does: hold them, hold the whole run, or fail it."""
    approval_expires: str = "7d"
    """How long what a guard holds can be approved: `12h`, `7d`, `2w`."""


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What to do in the cases that a source or a crash may bring."""

    on_invalid_key: Literal["skip", "quarantine", "fail"] = "skip"
    on_conflict: str | Callable[[list[dict[str, Any]]], dict[str, Any]] = "last"
    """`last`, `first`, `max:FIELD`, `min:FIELD`, `fail`, `quarantine`, or a Python function."""
    on_lost_baseline: Literal["fail", "rebaseline", "resend"] = "fail"
    on_existing: Literal["overwrite", "keep", "fail"] = "overwrite"
    on_new_field: Literal["update", "adopt", "fail"] = "update"
    on_dropped_field: Literal["update", "fail"] = "fail"
    on_retyped_field: Literal["update", "fail"] = "fail"
    """What to do where `types` gives a compared field another type than it is pinned to."""
    delete_after_misses: int = 1
    """Delete after so many complete runs in a row that covered the key without reading it (at most 254)."""
    deleted_when: str | None = None
    """Records that the source marks as deleted: `deleted_at is not null`, `status = 'gone' or hidden = true`."""


class DestinationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where changes go."""

    url: str | None = None
    """None: the caller delivers (`rundiff.changes`)."""
    into: str | None = None
    """The table, optionally with its schema."""
    shared_table: bool = False
    mode: Literal["mirror", "soft_delete", "append", "history"] = "mirror"
    """What a table keeps of changed and deleted rows."""
    http_item: str | Callable[..., Any] | None = None
    """Where a record is below the URL: a template such as `/{id}`, `module:function`, or a function."""
    http_update: Literal["PATCH", "PUT"] = "PATCH"
    http_body: str | Callable[..., Any] | None = None
    """What is sent of a record: JSON with placeholders, `module:function`, or a function; None: its data."""
    http_batch: int = 1
    """Records in one request."""
    http_headers: Mapping[str, str] = {}
    """May hold secrets: never stored, logged or printed."""
    http_secret_env: str | None = None
    """The environment variable with the secret for Standard Webhooks signatures."""
    http_rate: float | None = None
    """Requests a second at most."""
    http_timeout: float = 30.0
    """Seconds."""
    http_attempts: int = 5
    http_concurrency: int = 4
    http_allow_private: bool = False
    csv_formula_safe: bool = False
    """Put an apostrophe before each text of a CSV file that a spreadsheet could take for a formula."""
    kafka_value: Literal["change", "record", "debezium"] = "change"
    """What a message holds: the object of the change stream, the record alone, or Debezium's envelope."""
    kafka_tombstones: bool = True
    """Follow a Debezium delete event by a tombstone, so that compaction forgets the key."""
    kafka_transactions: bool = True
    """Commit each batch with its watermark: each change once, for readers of committed messages."""
    kafka_watermarks: str = "_rundiff_watermarks"
    """The topic of the watermarks; transactional ids begin with its name."""
    kafka_options: Mapping[str, str] = {}
    """Properties of librdkafka's clients. They may hold secrets: never stored, logged or printed."""
    function: Any = None
    """A Python function or object that takes the changes; only from Python."""

    @property
    def particular(self) -> dict[str, Any]:
        """The options of one kind of destination that differ from their defaults, but for secret ones."""
        return {
            field.name: value
            for field in msgspec.structs.fields(DestinationOptions)
            if field.name.startswith(PARTICULAR)
            and field.name not in _SECRET
            and (value := getattr(self, field.name)) != field.default
        }


class SyncSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one sync is asked to do."""

    name: str
    source: Any
    """A path, a glob, `-`, an iterable of mappings, or an object of the Arrow PyCapsule interface."""
    primary_key: tuple[str, ...]
    destination: DestinationOptions = DestinationOptions()
    reading: SourceOptions = SourceOptions()
    comparison: Comparison = Comparison()
    scoping: Scoping = Scoping()
    guards: Guards = Guards()
    policies: Policies = Policies()
    full_refresh: bool = False
    batch_size: int = 131_072
    """The most write records in one batch of delivery."""
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
    former_signing_key: bytes | None = None
    """The one before, while the key is rotated; empty: there was none. None: the key is not rotated."""
    retention_days: float = 7.0
    database: str | None = None
    """The URL of the database; None: the home directory. It may hold a password: never stored or printed."""
    signatures: str | None = None
    """The URL of the signature store; None: the home directory. It may hold a password, too."""
    cache_bytes: int = 10**10
    """What local copies of a server's baselines and write logs may take together."""

    def __repr__(self) -> str:
        return f"Storage(home={self.home!r})"
