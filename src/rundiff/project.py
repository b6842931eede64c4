"""`rundiff.toml`, the environment, flags and keywords, turned into settings.

The file has tables `[sync.NAME]`, a table `[defaults]` for the options of all syncs, and a few keys
on top. `${NAME}` in a text stands for an environment variable, `$${` for a plain `${`. A variable is
looked up when the sync that uses it is asked for, so that a missing secret of one sync stops no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack
from urllib.parse import unquote, urlsplit

import msgspec

from rundiff.errors import ConfigurationError
from rundiff.options import OPTIONS, convert, fill, nearest, parse_duration, parse_size
from rundiff.settings import DestinationOptions, Storage, SyncSettings
from rundiff.variables import expanded, variables_of

__all__ = [
    "PROJECT_FILE",
    "Project",
    "Servers",
    "ad_hoc",
    "check_name",
    "derived_name",
    "load_project",
    "storage",
]

PROJECT_FILE = "rundiff.toml"
DEFAULT_HOME = ".rundiff"
DEFAULT_RETENTION_DAYS = 7.0
DEFAULT_CACHE_LIMIT = "10GB"
TOP_KEYS = ("home", "database", "signatures", "retention", "cache_limit", "sync", "defaults")
FLOW_KEYS = ("source", "key", "to", "into")
FILE_OPTIONS = tuple(name for name, option in OPTIONS.items() if option.in_file)
MEANT = {"primary_key": "key", "destination": "to", "syncs": "sync", "default": "defaults"}
"""Words that people know from Python or elsewhere, and their keys here."""
SHORTEST_MASKED = 3
"""A shorter value would be found all over a message by chance."""


@dataclass(frozen=True, slots=True)
class Project:
    """What `rundiff.toml` says; without a file, an empty project."""

    path: Path | None = None
    home: str | None = None
    database: str | None = None
    signatures: str | None = None
    retention_days: float = DEFAULT_RETENTION_DAYS
    cache_limit: str | None = None
    """As in `10GB`."""
    syncs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The tables `[sync.NAME]` as written, with the defaults beneath, in the order of the file."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: frozenset[str] = frozenset()
    """The environment variables that `database` and `signatures` mention."""

    def settings(self, name: str, overrides: Mapping[str, Any] | None = None) -> SyncSettings:
        """Give the settings of one sync; `overrides` are option values that win over the file's.

        Raises:
            ConfigurationError: there is no such sync, a variable is not set, or a value doesn't fit.
        """
        if name not in self.syncs:
            raise ConfigurationError(self._unknown(name))
        table, where = self.syncs[name], f"[sync.{name}] of {PROJECT_FILE}"
        for needed in ("source", "key", "to"):
            if needed not in table:
                raise ConfigurationError(f"{where} needs `{needed}`.")
        values = {
            key: convert(
                OPTIONS[key],
                expanded(value, self.environ, f"`{key}` in {where}"),
                f"`{key}` in {where}",
                strict=not variables_of(value),
            )
            for key, value in table.items()
            if key in OPTIONS
        }
        flow = {
            key: expanded(table[key], self.environ, f"`{key}` in {where}")
            for key in FLOW_KEYS
            if key in table
        }
        for key in ("source", "to", "into"):
            if key in flow and (not isinstance(flow[key], str) or not flow[key]):
                raise ConfigurationError(f"`{key}` in {where} must be text.")
        settings = SyncSettings(
            name=name,
            source=flow["source"],
            primary_key=_key_fields(flow["key"], f"`key` in {where}"),
            destination=DestinationOptions(url=flow["to"], into=flow.get("into")),
        )
        return _checked(fill(fill(settings, values), _converted(overrides or {})))

    def destination(self, name: str) -> DestinationOptions | None:
        """Give the destination of a sync with its options and secrets; None where the file has no such sync."""
        return self.settings(name).destination if name in self.syncs else None

    def destination_url(self, name: str) -> str | None:
        """Give the destination of a sync with its secrets, or None where the file has no such sync."""
        table = self.syncs.get(name)
        if table is None or not isinstance(table.get("to"), str):
            return None
        url: str = expanded(table["to"], self.environ, f"`to` in [sync.{name}] of {PROJECT_FILE}")
        return url

    def destination_mentions_variables(self, name: str) -> bool:
        """Say whether a sync of the file takes its destination, or a part of it, from the environment."""
        return bool(variables_of(self.syncs.get(name, {}).get("to")))

    def masked(self, text: str) -> str:
        """Put `${NAME}` back in the place of values that came from the environment."""
        names = self.variables.union(*(variables_of(table) for table in self.syncs.values()))
        found: dict[str, str] = {}
        for name in names:
            value = self.environ.get(name, "")
            for spelling in (value, unquote(value)):
                if len(spelling) >= SHORTEST_MASKED:
                    found.setdefault(spelling, f"${{{name}}}")
        for value in sorted(found, key=len, reverse=True):
            text = text.replace(value, found[value])
        return text

    def _unknown(self, name: str) -> str:
        if self.path is None:
            return (
                f"There is no {PROJECT_FILE} here that could name the sync {name}: "
                "give --key and --to to sync a file at once, or write one with `rundiff init`."
            )
        if "." in name or "/" in name:
            return f"{PROJECT_FILE} has no sync {name}: give --key and --to to sync a file at once."
        return f"{PROJECT_FILE} has no sync {name} ({nearest(name, self.syncs)})."


def load_project(path: Path | None, environ: Mapping[str, str]) -> Project:
    """Read a project file: `path`, or `rundiff.toml` of the current directory if there is one.

    Raises:
        ConfigurationError: the file can't be read, is no TOML, has unknown keys or wrong values.
    """
    if path is None:
        path = Path(PROJECT_FILE)
        if not path.is_file():
            return Project(environ=environ)
    document = _parsed(path)
    _refuse_unknown(document, TOP_KEYS, PROJECT_FILE)
    defaults = _flattened(_table(document, "defaults", "[defaults]"), "defaults")
    _refuse_unknown(defaults, FILE_OPTIONS, f"[defaults] of {PROJECT_FILE}")
    syncs: dict[str, Mapping[str, Any]] = {}
    for name, table in _table(document, "sync", "[sync.NAME]").items():
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"`{name}` stands in [sync] of {PROJECT_FILE}, which holds only tables: write [sync.NAME]."
            )
        check_name(name)
        table = _flattened(table, f"sync.{name}")  # noqa: PLW2901 -- the same table, spelled otherwise
        _refuse_unknown(table, (*FLOW_KEYS, *FILE_OPTIONS), f"[sync.{name}] of {PROJECT_FILE}")
        syncs[name] = {**defaults, **table}
    top: dict[str, str | None] = {}
    for key in ("home", "database", "signatures", "retention", "cache_limit"):
        value = expanded(document.get(key), environ, f"`{key}` of {PROJECT_FILE}")
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigurationError(f"`{key}` of {PROJECT_FILE} must be text.")
        top[key] = value
    return Project(
        path=path,
        home=top["home"],
        database=top["database"],
        signatures=top["signatures"],
        retention_days=_days(top["retention"]),
        cache_limit=top["cache_limit"],
        syncs=syncs,
        environ=environ,
        variables=frozenset(variables_of([document.get("database"), document.get("signatures")])),
    )


def ad_hoc(
    source: Any,
    key: str | Sequence[str],
    to: str | None = None,
    into: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> SyncSettings:
    """Give the settings of a sync that no file names: the keywords of `rundiff.sync`, the command's flags.

    Without `name`, one is derived from the source, and `named` is False.

    Raises:
        ConfigurationError: an option is unknown, or a value doesn't fit.
    """
    for option in options or {}:
        if option not in OPTIONS:
            raise ConfigurationError(f"There is no option `{option}` ({nearest(option, OPTIONS)}).")
    if name is not None:
        check_name(name)
    settings = SyncSettings(
        name=name if name is not None else derived_name(source, (options or {}).get("table")),
        source=source,
        primary_key=_key_fields(key, "The primary key"),
        destination=DestinationOptions(url=to, into=into),
        named=name is not None,
    )
    return _checked(fill(settings, _converted(options or {})))


class Servers(TypedDict, total=False):
    """URLs that name other places for the state than the home directory."""

    database: str | None
    signatures: str | None


def storage(
    home: str | None, environ: Mapping[str, str], project: Project, **servers: Unpack[Servers]
) -> Storage:
    """Say where the state is kept.

    The home directory is `home` (the flag), else RUNDIFF_HOME, else the project's, else `.rundiff`. The
    database and the signature store are the URLs in `servers` (the flags), else RUNDIFF_DATABASE and
    RUNDIFF_SIGNATURES, else the project's, else the home directory. RUNDIFF_CACHE_LIMIT, else the project's
    `cache_limit`, bounds the local copies of what servers keep.

    Raises:
        ConfigurationError: the database or the signature store is no URL, the limit no size, or the signing
            key of the environment can't be used.
    """
    chosen = home or environ.get("RUNDIFF_HOME") or project.home or DEFAULT_HOME
    from rundiff.signing.keys import load_former_key, load_signing_key

    key = load_signing_key(environ)
    return Storage(
        home=chosen,
        signing_key=key.secret if key else None,
        former_signing_key=load_former_key(environ),
        retention_days=project.retention_days,
        database=_server("database", chosen, (servers.get("database"), environ, project.database)),
        signatures=_server("signatures", chosen, (servers.get("signatures"), environ, project.signatures)),
        cache_bytes=_cache_bytes(environ, project),
    )


def _cache_bytes(environ: Mapping[str, str], project: Project) -> int:
    if asked := environ.get("RUNDIFF_CACHE_LIMIT"):
        return parse_size(asked, "RUNDIFF_CACHE_LIMIT")
    return parse_size(project.cache_limit or DEFAULT_CACHE_LIMIT, f"`cache_limit` of {PROJECT_FILE}")


def _server(what: str, home: str, given: tuple[str | None, Mapping[str, str], str | None]) -> str | None:
    """Take the first URL that flag, environment or project file gives; None for the home directory."""
    flag, environ, in_file = given
    variable = f"RUNDIFF_{what.upper()}"
    asked, place = flag, f"--{what}"
    if not asked:
        asked, place = environ.get(variable), variable
    if not asked:
        asked, place = in_file, f"`{what}` of {PROJECT_FILE}"
    if not asked or ("://" not in asked and Path(asked).absolute() == Path(home).absolute()):
        return None
    if "://" not in asked:
        # It is not repeated: a URL that lost its scheme may hold a password.
        example = "postgresql://HOST/NAME" if what == "database" else "redis://HOST"
        raise ConfigurationError(
            f"{place} must be a URL such as {example}, or be left out for the home directory, which --home, "
            "RUNDIFF_HOME or `home` chooses."
        )
    return asked


def derived_name(source: Any, table: Any = None) -> str:
    """Name a sync after its source: the file's name without suffixes, the table's, `stdin`, or `rows`.

    A glob gives the part before its first wildcard; a URL gives its path, never its secrets.
    """
    if not isinstance(source, str | Path):
        return "rows"
    text = str(source)
    if isinstance(table, str):
        return table.strip('"').rpartition(".")[2].strip('"') or "rows"
    if text == "-":
        return "stdin"
    if "://" in text:
        text = urlsplit(text).path
    before = re.split(r"[*?\[]", text, maxsplit=1)[0]
    if before != text:
        before = before.rstrip("/-_. ")
    return Path(before).name.lstrip(".").split(".")[0] or "rows"


def check_name(name: str) -> None:
    """Refuse a sync name that could be taken for a flag or would spoil a line of output."""
    if not name.strip() or name.startswith("-") or not name.isprintable() or len(name) > 200:
        raise ConfigurationError(
            "The name of a sync must be 1 to 200 printable characters and not begin with a dash."
        )


def _converted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: convert(OPTIONS[name], value, f"`{name}`") for name, value in values.items()}


def _checked(settings: SyncSettings) -> SyncSettings:
    """Refuse normalisers that mean nothing before anything is opened."""
    if settings.comparison.normalize:
        from rundiff.engine.forming import preparation_of

        preparation_of(settings)
    return settings


def _parsed(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name} is not valid TOML: {error}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path.name} is not UTF-8 text.") from None
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from None


def _table(document: Mapping[str, Any], key: str, shown: str) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"`{key}` of {PROJECT_FILE} must be a table: write {shown}.")
    return table


def _flattened(table: Mapping[str, Any], shown: str) -> Mapping[str, Any]:
    """Spell the keys of tables `http` and `kafka` as the options are called: `http_batch` for `batch`."""
    flat = {key: value for key, value in table.items() if key not in ("http", "kafka")}
    for kind in ("http", "kafka"):
        for key, value in _table(table, kind, f"[{shown}.{kind}]").items():
            # A body may be written as TOML, too.
            is_body = (kind, key) == ("http", "body") and not isinstance(value, str)
            flat[f"{kind}_{key}"] = msgspec.json.encode(value).decode() if is_body else value
    return flat


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key in known:
            continue
        meant = MEANT.get(key)
        hint = f"did you mean {meant}?" if meant in known else nearest(key, known)
        raise ConfigurationError(f"{where} has an unknown key `{key}` ({hint}).")


def _key_fields(key: Any, label: str) -> tuple[str, ...]:
    try:
        fields = msgspec.convert((key,) if isinstance(key, str) else key, tuple[str, ...])
    except msgspec.ValidationError:
        raise ConfigurationError(f"{label} must be a field name or a list of field names.") from None
    if not fields or not all(fields) or len(set(fields)) < len(fields):
        raise ConfigurationError(f"{label} must name one field or several different ones.")
    return fields


def _days(retention: str | None) -> float:
    if retention is None:
        return DEFAULT_RETENTION_DAYS
    return parse_duration(retention.strip(), f"`retention` of {PROJECT_FILE}") / timedelta(days=1)
