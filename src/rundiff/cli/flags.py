"""Flags of a sync, one for each entry of the table of options."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from rundiff.options import OPTIONS, Kind, Option

__all__ = ["HELP", "flow_flags", "given_options", "option_flags", "parts"]

Command = TypeVar("Command", bound=Callable[..., Any])

HELP: Mapping[str, str] = {
    "types": "Types that are not to be guessed, as in zip=text,price=decimal(10,2).",
    "delimiter": "What separates the fields of a text file.",
    "encoding": "How a text file is encoded.",
    "null": "Further spellings of null in text files, beside the empty unquoted field.",
    "expected_rows": "How many records the source states to have; nothing is deleted unless it has them.",
    "table": "The table of a database that is the source, as in people or schema.people.",
    "query": "What a database that is the source is asked for, in place of a table.",
    "count_rows": "Count a database's rows in the same snapshot; nothing is deleted unless all were read.",
    "exclude": "Fields that are not compared (globs, or paths into nested fields), in place of the default ones.",
    "include": "The only fields to compare (globs, or paths into nested fields).",
    "normalize": "How a field is brought to one form before it is compared, as in lat=round(4) or "
    "name=trim|casefold.",
    "field_signatures": "Keep a short signature of each compared field, so that changed_fields needs no former record.",
    "scope": "Which part of the source is read: full, incremental (deletes nothing) or partition.",
    "partition": "Read one partition, as in region=EU; once for each value. Deletes only inside of it.",
    "partition_by": "The fields that hold a record's parent; deletes only below parents that were read.",
    "partitions": "The parents that are read, in place of those that turn up.",
    "cursor": "The field whose highest value so far is offered to the source of an incremental run.",
    "full_every": "Make a run a full one where the last full run is older, as in 24h or 7d.",
    "max_deletes": "Hold the deletions when there are more.",
    "max_delete_percent": "Hold the deletions when they pass this share of the baseline.",
    "min_records": "Hold the deletions when fewer records were read.",
    "max_updates_percent": "Hold the whole run when updates pass this share of the baseline.",
    "max_creates_percent": "Hold the whole run when creates pass this share of the baseline.",
    "allow_empty": "Let an empty extract delete everything.",
    "partition_guards": "Guards of each partition by itself, as in max_delete_percent=25.",
    "max_drop_percent": "Hold the deletions when so much less was read than usual.",
    "sentinel": "A record that the source always has, as in id=0; nothing is deleted unless it was read.",
    "max_invalid_keys": "Nothing is deleted when more records have no key; left out: than in the last complete run.",
    "on_guard": "What a guard does: hold the deletions, hold the whole run, or fail it.",
    "approval_expires": "How long what a guard holds can be approved, as in 12h or 7d.",
    "on_invalid_key": "What becomes of a record without a key.",
    "on_conflict": "Which of several different records with one key wins: last, first, max:FIELD, min:FIELD, "
    "fail or quarantine.",
    "on_lost_baseline": "What to do when the baseline is unknown.",
    "on_existing": "What to do with keys that the destination already holds at the first run.",
    "on_new_field": "What to do when the source has a new field.",
    "on_dropped_field": "What to do when the source has lost a field.",
    "on_retyped_field": "What to do when --types gives a field another type than it has.",
    "delete_after_misses": "Delete after so many complete runs in a row that did not read the key.",
    "deleted_when": 'Records that the source marks as deleted, as in "deleted_at is not null".',
    "shared_table": "Let several syncs write to one table.",
    "mode": "What a table keeps: rows as they are, deleted ones marked, every change, or every version in time.",
    "http_item": "Where a record is below an HTTP destination's URL, as in /{id}; or module:function.",
    "http_update": "The method of an update over HTTP.",
    "http_body": 'What is sent of a record over HTTP: JSON with placeholders, as in {"key": "{id}"}, or '
    "module:function; else its data.",
    "http_batch": "Records in one HTTP request; above 1 they are sent as a JSON array, by POST.",
    "http_headers": "Headers of every HTTP request. Secrets stand better in rundiff.toml, as ${NAME}.",
    "http_secret_env": "The environment variable with the secret for Standard Webhooks signatures.",
    "http_rate": "HTTP requests a second at most.",
    "http_timeout": "Seconds to wait for an HTTP answer.",
    "http_attempts": "How often an HTTP request is tried.",
    "http_concurrency": "HTTP requests side by side.",
    "http_allow_private": "Let an HTTP destination have a private, loopback or link-local address.",
    "csv_formula_safe": "Put an apostrophe before texts of a CSV file that a spreadsheet could take for formulas.",
    "kafka_value": "What a Kafka message holds: the change, the record alone, or Debezium's envelope.",
    "kafka_tombstones": "Follow a Debezium delete event by a tombstone.",
    "kafka_transactions": "Commit each batch to Kafka with its watermark, so that each change lands once.",
    "kafka_watermarks": "The Kafka topic of the watermarks, with whose name transactional ids begin.",
    "kafka_options": "Properties of the Kafka client, as in linger.ms=50. Secrets stand better in rundiff.toml.",
    "full_refresh": "Send every record again, as if for the first time.",
    "batch_size": "The most write records in one batch of delivery.",
    "max_failures": "Stop the delivery when more records than this are refused or have no known outcome.",
    "wait": "Wait for another run of the same sync instead of giving up.",
}
"""One sentence for each option."""

_NEXT_PAIR = re.compile(r",(?=[^,=]+=)")
"""A comma that begins another FIELD=TEXT; the one in decimal(10,2) does not."""


def parts(values: Sequence[str]) -> tuple[str, ...]:
    """Split the values of a repeatable flag at commas; quotes keep a comma as it is.

    >>> parts(["id,region", "day"])
    ('id', 'region', 'day')
    """
    return tuple(part for value in values for part in (next(csv.reader([value]), None) or [value]))


def _list(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...] | None:  # noqa: ARG001 - click's signature
    return parts(values) or None


def _mapping(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    for value in values:
        for pair in _NEXT_PAIR.split(value):
            name, equals, text = pair.partition("=")
            if not (name and equals and text):
                raise click.BadParameter("write it as FIELD=TEXT.", ctx, param)
            pairs[name.strip()] = text.strip()
    return pairs or None


def _partition(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any] | None:
    named: dict[str, Any] = {}
    for value in values:
        for name, text in (_mapping(ctx, param, [value]) or {}).items():
            named.setdefault(name, []).append(text)
    return named or None


def _delimiter(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001 - as above
    # A shell has no easy way to write a tab.
    return "\t" if value == "\\t" else value


def _flag(option: Option) -> Callable[[Command], Command]:
    shapes: dict[Kind, dict[str, Any]] = {
        Kind.SWITCH: {"is_flag": True, "default": None},
        Kind.WHOLE: {"type": int, "metavar": "COUNT"},
        Kind.NUMBER: {"type": float, "metavar": "NUMBER"},
        Kind.CHOICE: {"type": click.Choice(option.choices)},
        Kind.LIST: {"multiple": True, "metavar": "A,B", "callback": _list},
        Kind.MAPPING: {
            "multiple": True,
            "metavar": "FIELD=TEXT",
            "callback": _partition if option.name == "partition" else _mapping,
        },
        Kind.RULE: {"metavar": "RULE"},
        Kind.FUNCTION: {"metavar": "TEXT"},
        Kind.TEXT: {"metavar": "TEXT", "callback": _delimiter if option.name == "delimiter" else None},
    }
    spelling = option.flag
    if option.kind is Kind.SWITCH and option.in_file:
        # The file may have switched it on.
        spelling = f"{option.flag}/--no-{option.flag[2:]}"
    return click.option(spelling, option.name, help=HELP.get(option.name), **shapes[option.kind])


def option_flags(command: Command) -> Command:
    """Declare a flag for every option of a sync."""
    for option in reversed(list(OPTIONS.values())):
        command = _flag(option)(command)
    return command


def flow_flags(command: Command) -> Command:
    """Declare the flags that make a sync at once, without a project file."""
    for flag, metavar, text in (
        ("--name", "NAME", "What to call the sync; else it is named after its source."),
        ("--into", "TABLE", "The destination's table."),
        (
            "--to",
            "DESTINATION",
            "A database URL, a path ending in .jsonl, .csv or .parquet, or - for standard output.",
        ),
    ):
        command = click.option(flag, metavar=metavar, help=text)(command)
    return click.option(
        "--key",
        multiple=True,
        metavar="FIELD[,FIELD]",
        callback=_list,
        help="The fields that identify a record.",
    )(command)


def given_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options that were given from a command's parameters."""
    return {name: given[name] for name in OPTIONS if given.get(name) is not None}
