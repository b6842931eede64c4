"""Find the destination that a URL or path names; backends are imported only when they are named."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rundiff.errors import ConfigurationError
from rundiff.plugins import entry_points
from rundiff.settings import DestinationOptions

if TYPE_CHECKING:  # it brings Arrow, which a command that delivers nothing does not need
    from rundiff.destinations.contract import Destination

__all__ = ["ENTRY_POINTS", "open_destination"]

ENTRY_POINTS = "rundiff.destinations"
"""The group in which packages register `scheme = module:function`; the function takes `DestinationOptions`
and gives a `Destination`."""

_TABLES = {
    "sqlite": "rundiff.destinations.sqlite:open_table",
    "duckdb": "rundiff.destinations.duckdb:open_table",
    "postgresql": "rundiff.destinations.postgresql:open_table",
    "postgres": "rundiff.destinations.postgresql:open_table",
    "mysql": "rundiff.destinations.mysql:open_table",
    "mariadb": "rundiff.destinations.mysql:open_table",
}
_APIS = {
    "http": "rundiff.destinations.http:open_api",
    "https": "rundiff.destinations.http:open_api",
    "kafka": "rundiff.destinations.kafka:open_topic",
}
_OBJECTS = {
    "s3": "rundiff.destinations.runobjects:open_objects",
    "gs": "rundiff.destinations.runobjects:open_objects",
    "az": "rundiff.destinations.runobjects:open_objects",
}
_FILES = {
    ".jsonl": "rundiff.destinations.stream:open_stream",
    ".parquet": "rundiff.destinations.folder:open_parquet",
    ".csv": "rundiff.destinations.folder:open_csv",
    "-": "rundiff.destinations.stream:open_standard_output",
}
_KNOWN = (
    "sqlite:///FILE, duckdb:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE, mysql://USER:PASSWORD@HOST/DATABASE, "
    "https://HOST/PATH, kafka://HOST/TOPIC, FILE.jsonl, FOLDER.parquet, FOLDER.csv, s3://BUCKET/PREFIX.parquet "
    "(or gs://, az://), - for standard output"
)


def open_destination(options: DestinationOptions) -> Destination:
    """Open the destination of `options.url`: nothing is touched before a method of it is called.

    Schemes of databases need `into`, and take `mode`; a path ends in `.jsonl`, `.csv` or `.parquet`; `-` is
    standard output; other schemes are looked up among the entry points `rundiff.destinations`. Raises
    `ConfigurationError` for anything else, and where `into` is missing, or it or `mode` has no meaning.
    """
    url = options.url
    if not url:
        raise ConfigurationError(f"No destination is named: use --to with one of {_KNOWN}.")
    scheme, separator, _ = url.partition("://")
    if not separator:
        return _open_file(url, options)
    scheme = scheme.lower()
    if scheme in _TABLES:
        _refuse_csv_options(options, f"{scheme}://", "")
        if options.into is None:
            raise ConfigurationError(f"The destination {scheme}:// needs a table: name it with --into TABLE.")
        return _call(_TABLES[scheme], f"{scheme}://{url.partition('://')[2]}", options.into, options.mode)
    if scheme in _APIS or scheme in _OBJECTS:
        _refuse_table_options(options, f"{scheme}://")
        _refuse_csv_options(options, f"{scheme}://", url.partition("?")[0])
        module, name = {**_APIS, **_OBJECTS}[scheme].split(":")
        opened: Destination = getattr(import_module(module), name)(options)
        return opened
    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        loaded: Destination = entry.load()(options)
        return loaded
    others = sorted(f"{name}://" for name in entry_points(group=ENTRY_POINTS).names)
    raise ConfigurationError(
        f"There is no destination {scheme}://: use one of {', '.join([_KNOWN, *others])}, "
        "or install the package that brings it."
    )


def _open_file(url: str, options: DestinationOptions) -> Destination:
    ending = next((ending for ending in _FILES if url.lower().endswith(ending)), None)
    if ending is None or (ending == "-" and url != "-"):
        raise ConfigurationError(f"{url!r} names no destination: use one of {_KNOWN}.")
    _refuse_table_options(options, url)
    _refuse_csv_options(options, url, url)
    module, name = _FILES[ending].split(":")
    opened: Destination = getattr(import_module(module), name)(options)
    return opened


def _refuse_table_options(options: DestinationOptions, shown: str) -> None:
    if options.into is not None:
        raise ConfigurationError(f"The destination {shown} has no tables: leave --into out.")
    if options.mode != "mirror":
        raise ConfigurationError(
            f"The destination {shown} gets every change as it is: --mode {options.mode} is for tables, leave it out."
        )


def _refuse_csv_options(options: DestinationOptions, shown: str, path: str) -> None:
    if options.csv_formula_safe and not path.lower().endswith(".csv"):
        raise ConfigurationError(
            f"The destination {shown} is no CSV: --csv-formula-safe is for CSV, leave it out."
        )


def _call(path: str, *arguments: str) -> Destination:
    module, name = path.split(":")
    factory: Callable[..., Any] = getattr(import_module(module), name)
    destination: Destination = factory(*arguments)
    return destination
