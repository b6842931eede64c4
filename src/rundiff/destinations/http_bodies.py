"""What is sent of a write record over HTTP: the path below the destination's URL, and the body.

Both are a template or a Python function. In a template `{field}` stands for a field's value, `{*}` for the
whole record; in a body, a text that is nothing but a placeholder keeps the value's JSON type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from rundiff.errors import ConfigurationError
from rundiff.functions import imported_function
from rundiff.model import SyncWriteRecord

__all__ = ["Maker", "Unfit", "body_maker", "path_maker"]

_PLACEHOLDER = re.compile(r"\{(\*|[^{}]+)\}")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Unfit(Exception):
    """A record can't be sent: its reason, without values."""


class Maker(msgspec.Struct, frozen=True):
    """Makes a part of a request from a record."""

    from_fields: Callable[[Mapping[str, Any]], Any] | None = None
    """From the fields in the form that they have in JSON."""
    from_record: Callable[[SyncWriteRecord], Any] | None = None
    fields: Collection[str] = ()
    """The fields that a template names."""


def body_maker(given: str | Callable[..., Any] | None) -> Maker | None:
    """Read `http_body`: JSON with placeholders in its texts, `module:function`, or a function."""
    function = _function(given, "http_body")
    if function is not None:
        return Maker(from_record=lambda record: _called(function, record))
    if given is None:
        return None
    try:
        template = msgspec.json.decode(str(given))
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f'http_body must be JSON, such as \'{{"id": "{{id}}"}}\', or module:function ({error}).'
        ) from None
    return Maker(from_fields=lambda fields: _filled(template, fields), fields=_named(str(given)))


def path_maker(given: str | Callable[..., Any] | None, primary_key: Collection[str]) -> Maker:
    """Read `http_item`: a path or URL with placeholders, `module:function`, or a function.

    Without one it is the values of the key fields, each after a slash.
    """
    function = _function(given, "http_item")
    if function is not None:
        return Maker(from_record=lambda record: str(_called(function, record)))
    template = "".join(f"/{{{name}}}" for name in primary_key) if given is None else str(given)
    if not _PLACEHOLDER.search(template):
        raise ConfigurationError(
            "http_item must have a placeholder such as {id}: without one all records would have one URL."
        )
    return Maker(
        from_fields=lambda fields: _PLACEHOLDER.sub(lambda match: _in_path(fields, match[1]), template),
        fields=_named(template),
    )


def _named(template: str) -> set[str]:
    return {name for name in _PLACEHOLDER.findall(template) if name != "*"}


def _function(given: Any, option: str) -> Callable[..., Any] | None:
    if callable(given):
        return given  # type: ignore[no-any-return]  # callable() can't say what it returns
    if not isinstance(given, str) or not _REFERENCE.fullmatch(given):
        return None
    return imported_function(given, option)


def _called(function: Callable[[SyncWriteRecord], Any], record: SyncWriteRecord) -> Any:
    try:
        return function(record)
    except Exception as error:  # whatever the user's function raises refuses its record
        raise Unfit(f"the function {getattr(function, '__name__', function)} failed: {error}") from error


def _filled(template: Any, fields: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        whole = _PLACEHOLDER.fullmatch(template)
        if whole is not None:
            return dict(fields) if whole[1] == "*" else fields.get(whole[1])
        return _PLACEHOLDER.sub(lambda match: _text(fields, match[1]), template)
    if isinstance(template, list):
        return [_filled(part, fields) for part in template]
    if isinstance(template, dict):
        return {name: _filled(part, fields) for name, part in template.items()}
    return template


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = dict(fields) if name == "*" else fields.get(name)
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _in_path(fields: Mapping[str, Any], name: str) -> str:
    text = _text(fields, name)
    # An empty value would name the collection, and dots a folder above: neither is this record.
    if text.strip() in ("", ".", ".."):
        raise Unfit(f"the field {name} is empty or only dots, so that no URL can name the record")
    return quote(text, safe="")
