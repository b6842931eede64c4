"""The one table of a sync's options: keys of `rundiff.toml`, keywords of Python, flags of the command.

The table is read off the structs of `rundiff.settings`, so that an option that is added there is at
once a key, a keyword and a flag, under one name and with one type.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from rundiff.errors import ConfigurationError
from rundiff.settings import PARTICULAR, DestinationOptions, PartitionGuards, SyncSettings

__all__ = ["OPTIONS", "Kind", "Option", "convert", "fill", "nearest", "parse_duration"]

CONFLICT_RULES = ("last", "first", "fail", "quarantine", "max:FIELD", "min:FIELD")
RUN_OPTIONS = ("full_refresh", "batch_size", "max_failures", "wait")
"""Options that `SyncSettings` holds itself."""
ONLY_FOR_ONE_RUN = frozenset({"full_refresh"})
"""Would be a mistake if every run did it, hence no key of `rundiff.toml`."""
DURATIONS = frozenset({"full_every", "approval_expires"})
FROM_ONE = frozenset({"batch_size", "delete_after_misses"})
MOST_MISSES = 254
"""The baseline counts misses in one byte."""
DESTINATION_OPTIONS = (
    "shared_table",
    "mode",
    *(name for name in DestinationOptions.__struct_fields__ if name.startswith(PARTICULAR)),
)
"""Options of the destination beside `to` and `into`, which every entry names by itself."""


class Kind(StrEnum):
    """What an option's value looks like."""

    SWITCH = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a number"
    TEXT = "text"
    CHOICE = "one of its choices"
    LIST = "a list of texts"
    MAPPING = "a table of field = text"
    RULE = "a rule, or a Python function"
    FUNCTION = "text, or a Python function"


class Option(msgspec.Struct, frozen=True):
    """One option of a sync."""

    name: str
    group: str
    """The attribute of `SyncSettings` whose struct has it; empty for its own."""
    kind: Kind
    type: Any
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The flag of the command: the name with dashes."""
        return "--" + self.name.replace("_", "-")

    @property
    def in_file(self) -> bool:
        """Whether `rundiff.toml` may set it."""
        return self.name not in ONLY_FOR_ONE_RUN


def _described(name: str, group: str, annotation: Any) -> Option:
    members = (
        [m for m in get_args(annotation) if m is not type(None)] if _is_union(annotation) else [annotation]
    )
    if any(get_origin(member) is Callable for member in members):
        return Option(name, group, Kind.RULE if name == "on_conflict" else Kind.FUNCTION, annotation)
    core = members[0]
    if get_origin(core) is Literal:
        return Option(name, group, Kind.CHOICE, annotation, get_args(core))
    kinds: dict[Any, Kind] = {
        bool: Kind.SWITCH,
        int: Kind.WHOLE,
        float: Kind.NUMBER,
        str: Kind.TEXT,
        tuple: Kind.LIST,
        Mapping: Kind.MAPPING,
    }
    found = kinds.get(get_origin(core) or core)
    if found is None:
        raise TypeError(f"the option {name} has the type {annotation}, which no flag can give")
    return Option(name, group, found, annotation)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _table() -> dict[str, Option]:
    """Read the options off the structs."""
    options: dict[str, Option] = {}
    own = get_type_hints(SyncSettings)
    for group, struct in own.items():
        if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
            continue
        for field in msgspec.structs.fields(struct):
            if struct is DestinationOptions and field.name not in DESTINATION_OPTIONS:
                continue
            if field.name in options:
                raise TypeError(f"two structs of settings.py have an option {field.name}")
            options[field.name] = _described(field.name, group, field.type)
    for name in RUN_OPTIONS:
        options[name] = _described(name, "", own[name])
    return options


OPTIONS: Mapping[str, Option] = _table()
"""Every option of a sync by name."""


def nearest(word: str, known: Collection[str]) -> str:
    """Give a half sentence that names the nearest known word, or all of them if none is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are: {', '.join(sorted(known))}" if known else "there are none"


def convert(option: Option, value: Any, label: str, *, strict: bool = True) -> Any:
    """Bring a value to an option's type.

    `label` names the option in messages, which never repeat the value: it may be a secret. Without
    `strict`, numbers and switches are also taken from text, as an environment variable gives them.

    Raises:
        ConfigurationError: the value is not of the option's type or out of its range.
    """
    if option.kind is Kind.RULE:
        return _conflict_rule(value, label)
    if option.kind is Kind.FUNCTION and callable(value):
        return value
    if option.kind is Kind.LIST and isinstance(value, str):
        value = [value]
    wanted_type = str if option.kind is Kind.FUNCTION else option.type
    try:
        result = msgspec.convert(value, wanted_type, strict=strict)
    except msgspec.ValidationError:
        wanted = f"one of {', '.join(option.choices)}" if option.choices else str(option.kind)
        raise ConfigurationError(f"{label} must be {wanted}; it is {_what(value, option)}.") from None
    if option.name == "partition_guards" and isinstance(result, Mapping):
        _check_partition_guards(result, label)
    if option.name in DURATIONS and result is not None:
        parse_duration(result, label)
    if isinstance(result, int | float) and not isinstance(result, bool):
        if not math.isfinite(result) or result < 0:
            raise ConfigurationError(f"{label} must be a number from 0 on.")
        if option.name in FROM_ONE and result < 1:
            raise ConfigurationError(f"{label} must be 1 or more.")
        if option.name == "delete_after_misses" and result > MOST_MISSES:
            raise ConfigurationError(f"{label} must be {MOST_MISSES} or less.")
    return result


def _check_partition_guards(given: Mapping[str, Any], label: str) -> None:
    known = PartitionGuards.__struct_fields__
    for name, value in given.items():
        if name not in known:
            raise ConfigurationError(f"{label} has no guard `{name}` ({nearest(name, known)}).")
        try:
            # The command gives texts.
            found = msgspec.convert({name: value}, PartitionGuards, strict=False)
        except msgspec.ValidationError:
            wanted = "true or false" if name == "allow_empty" else "a number from 0 on"
            raise ConfigurationError(f"`{name}` in {label} must be {wanted}.") from None
        number = getattr(found, name)
        if number is None or not math.isfinite(number) or number < 0:
            raise ConfigurationError(f"`{name}` in {label} must be a number from 0 on.")


_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([hdw])\s*")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}


def parse_duration(text: str, label: str) -> timedelta:
    """Read hours, days or weeks, as in `12h`, `7d`, `2w`; raises `ConfigurationError`."""
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) * _HOURS[match[2]] > 100 * 366 * 24:
        raise ConfigurationError(f'{label} must look like "12h", "7d" or "2w".')
    return timedelta(hours=float(match[1]) * _HOURS[match[2]])


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?B)")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str, label: str) -> int:
    """Read a number of bytes, as in `500MB`, `20GB` (powers of ten); raises `ConfigurationError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f'{label} must look like "500MB" or "20GB".')
    return int(float(match[1]) * _BYTES[match[2]])


def _conflict_rule(value: Any, label: str) -> Any:
    if callable(value):
        return value
    if isinstance(value, str):
        rule, colon, field = value.partition(":")
        if (rule in ("max", "min") and colon and field) or value in CONFLICT_RULES[:4]:
            return value
    raise ConfigurationError(f"{label} must be one of {', '.join(CONFLICT_RULES)}, or a Python function.")


def _what(value: Any, option: Option) -> str:
    """Say what kind of value was given, and nothing of the value."""
    if isinstance(value, str):
        return "another text" if option.kind is Kind.CHOICE else "text"
    if isinstance(value, Mapping):
        return "a table"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(
        type(value), "something else"
    )


def fill(settings: SyncSettings, values: Mapping[str, Any]) -> SyncSettings:
    """Put converted option values where they belong in `settings`."""
    by_group: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        by_group.setdefault(OPTIONS[name].group, {})[name] = value
    own = by_group.pop("", {})
    parts = {
        group: msgspec.structs.replace(getattr(settings, group), **given) for group, given in by_group.items()
    }
    return msgspec.structs.replace(settings, **parts, **own)
