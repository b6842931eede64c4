"""The keywords of `rundiff.sync` and its like, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from rundiff.model import SyncWriteRecord

__all__ = ["Arguments", "Options"]


Normaliser = str | Callable[[Any], Any]
"""A normaliser in words, or a function from an Arrow array to one of the same length."""


class Options(TypedDict, total=False):
    """The options of a sync: the keys of `rundiff.toml` and, with dashes, the flags of the command."""

    types: Mapping[str, str]
    delimiter: str
    encoding: str
    null: Sequence[str]
    expected_rows: int
    table: str
    query: str
    count_rows: bool
    exclude: Sequence[str]
    include: Sequence[str]
    normalize: Mapping[str, Normaliser | Sequence[Normaliser]]
    field_signatures: bool
    scope: Literal["full", "incremental", "partition"]
    partition: Mapping[str, Any]
    partition_by: Sequence[str]
    partitions: Sequence[Any]
    cursor: str
    full_every: str
    max_deletes: int
    max_delete_percent: float
    min_records: int
    max_updates_percent: float
    max_creates_percent: float
    allow_empty: bool
    partition_guards: Mapping[str, Any]
    max_drop_percent: float
    sentinel: Mapping[str, Any]
    max_invalid_keys: int
    on_guard: Literal["hold_deletes", "hold_run", "fail"]
    approval_expires: str
    on_invalid_key: Literal["skip", "quarantine", "fail"]
    on_conflict: str | Callable[[list[dict[str, Any]]], dict[str, Any]]
    on_lost_baseline: Literal["fail", "rebaseline", "resend"]
    on_existing: Literal["overwrite", "keep", "fail"]
    on_new_field: Literal["update", "adopt", "fail"]
    on_dropped_field: Literal["update", "fail"]
    on_retyped_field: Literal["update", "fail"]
    delete_after_misses: int
    deleted_when: str
    shared_table: bool
    mode: Literal["mirror", "soft_delete", "append", "history"]
    http_item: str | Callable[[SyncWriteRecord], str]
    http_update: Literal["PATCH", "PUT"]
    http_body: str | Callable[[SyncWriteRecord], Any]
    http_batch: int
    http_headers: Mapping[str, str]
    http_secret_env: str
    http_rate: float
    http_timeout: float
    http_attempts: int
    http_concurrency: int
    http_allow_private: bool
    csv_formula_safe: bool
    kafka_value: Literal["change", "record", "debezium"]
    kafka_tombstones: bool
    kafka_transactions: bool
    kafka_watermarks: str
    kafka_options: Mapping[str, str]
    full_refresh: bool
    batch_size: int
    max_failures: int
    wait: bool


class Arguments(Options, total=False):
    """The options of a sync, and where its state is kept other than in the home directory."""

    database: str | None
    signatures: str | None
