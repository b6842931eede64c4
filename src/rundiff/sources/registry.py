"""From what a caller names as a source to the source itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rundiff.errors import ConfigurationError
from rundiff.settings import SourceOptions
from rundiff.sources.sql import DATABASES, open_database

if TYPE_CHECKING:  # Arrow is slow to import, and the command starts without it
    from rundiff.sources.contract import Source

__all__ = ["known_schemes", "open_source", "register"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_FACTORIES: dict[str, str | Callable[[str], Source]] = {"file": "rundiff.sources.registry:_file_url"}
"""What makes a source of a URL, by scheme: a function, or `module:name` of one, imported when needed."""


def register(scheme: str, factory: str | Callable[[str], Source]) -> None:
    """Make URLs of a scheme a source; `factory` takes the URL, and may be named as `module:name`."""
    _FACTORIES[scheme.lower()] = factory


def known_schemes() -> list[str]:
    """List the schemes of URLs that can be read."""
    return sorted([*_FACTORIES, *DATABASES])


def open_source(source: Any, options: SourceOptions | None = None) -> Source:
    """Give the source that a caller means; nothing is read yet.

    Takes a path, a glob or `-`, a URL of a known scheme (of a database, with `table` or `query` in the
    options), an object of the Arrow PyCapsule interface, an iterable of mappings, a function that returns
    one of these, or a source that is one already. Raises `ConfigurationError` for anything else.
    """
    if isinstance(source, str | os.PathLike):
        return _named(os.fspath(source), options or SourceOptions())
    if options is not None:
        _refuse_selection(options, "rows in Python")
    if hasattr(source, "open") and hasattr(source, "may_delete_without_count"):
        ready: Source = source
        return ready
    from rundiff.sources.capsule import CapsuleSource, speaks_arrow

    if speaks_arrow(source):
        return CapsuleSource(source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes | bytearray):
        from rundiff.sources.rows import RowsSource

        return RowsSource(source)
    if callable(source):
        from rundiff.sources.calling import CallingSource

        return CallingSource(source)
    raise ConfigurationError(
        f"An object of the type {type(source).__name__} can't be read as records; take a path, "
        "an iterable of mappings, a table with the Arrow PyCapsule interface, or a function that returns one."
    )


def _refuse_selection(options: SourceOptions, what: str) -> None:
    for given, flag in ((options.table, "table"), (options.query, "query")):
        if given is not None:
            raise ConfigurationError(f"--{flag} is for URLs of databases: leave it out for {what}.")


def _named(name: str | bytes, options: SourceOptions) -> Source:
    name = os.fsdecode(name)
    if not name:
        raise ConfigurationError("The source has no name; take a path, `-` or a URL.")
    scheme = _SCHEME.match(name)
    if scheme is not None and scheme.group(1).lower() in DATABASES:
        return open_database(name, scheme.group(1).lower(), options)
    _refuse_selection(options, "other sources")
    if name == "-":
        from rundiff.sources.files import StandardInput

        return StandardInput()
    if scheme is None:
        from rundiff.sources.files import FileSource

        return FileSource(name)
    factory = _FACTORIES.get(scheme.group(1).lower())
    if factory is None:
        raise ConfigurationError(
            f"Sources of `{scheme.group(1)}://` are not known; known are paths and {', '.join(known_schemes())}."
        )
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        made: Source = getattr(import_module(module), attribute)(name)
        return made
    return factory(name)


def _file_url(url: str) -> Source:
    from rundiff.sources.files import FileSource

    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise ConfigurationError(f"{url} names another machine; a file URL has three slashes: file:///path.")
    return FileSource(unquote(parts.path))
