"""What is read from a database: a table or a query, and where databases are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from rundiff.errors import ConfigurationError
from rundiff.settings import SourceOptions

__all__ = ["Selection", "Server", "check_result", "database_file", "double_quoted", "parse_server"]

_SECRETS = ("password", "passwd", "sslpassword", "ssl_key_password")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")


def double_quoted(name: str) -> str:
    """Quote an identifier of any spelling (SQL:2016 part 2, section 5.2: delimited identifier)."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A table, or a query; one of both."""

    table: tuple[str, ...] = ()
    """The parts of the table's name: schema and name, or the name alone."""
    query: str = ""

    @classmethod
    def of(cls, options: SourceOptions, scheme: str) -> Selection:
        """Take the table or the query from the options; raises `ConfigurationError` unless one is given."""
        if (options.table is None) == (options.query is None):
            what = "either a table or a query" if options.table else "a table or a query"
            both = ", not both" if options.table else ""
            raise ConfigurationError(
                f'The source {scheme}:// needs {what}: name it with --table TABLE or --query "SELECT …"{both}.'
            )
        if options.query is not None:
            query = options.query.strip().rstrip(";").rstrip()
            if not query or "\0" in query:
                raise ConfigurationError('--query is empty: write --query "SELECT …".')
            return cls(query=query)
        named = options.table or ""
        parts = _split(named)
        if parts is None or len(parts) > 2 or not all(parts) or "\0" in named:
            raise ConfigurationError(
                f"{named!r} names no table: write --table TABLE or --table SCHEMA.TABLE, "
                'with a part that holds a dot in double quotes ("my.table").'
            )
        return cls(table=tuple(parts))

    def within(self, schema: str) -> Selection:
        """Give the table its schema, where it was named without one."""
        return Selection(table=(schema, *self.table)) if len(self.table) == 1 else self

    @property
    def identity(self) -> str:
        """What tells selections of one database apart; a query may hold secrets, so only its digest is shown."""
        if self.query:
            return f"?query={hashlib.sha256(self.query.encode()).hexdigest()[:16]}"
        return f"?table={self.name}"

    @property
    def name(self) -> str:
        """For people: the table as it would be written, or `the query`."""
        if self.query:
            return "the query"
        return ".".join(part if set(part) <= _PLAIN else double_quoted(part) for part in self.table)

    def relation(self, quoted: Sequence[str]) -> str:
        """What stands behind FROM; `quoted` are the parts of the table's name as the database quotes them."""
        # A comment may end the query, hence the line of its own.
        return f"({self.query}\n) AS rundiff_source" if self.query else ".".join(quoted)


def _split(named: str) -> list[str] | None:
    """Split at the dots outside of double quotes; None if the quotes don't pair."""
    parts, part, quoted, index = [], "", False, 0
    while index < len(named):
        char = named[index]
        if quoted and char == '"' and named[index + 1 : index + 2] == '"':
            part, index = part + '"', index + 1
        elif char == '"' and (quoted or not part):
            quoted = not quoted
        elif char == "." and not quoted:
            parts.append(part)
            part = ""
        else:
            part += char
        index += 1
    return None if quoted else [*parts, part]


def check_result(names: Sequence[str], primary_key: Sequence[str], label: str) -> None:
    """Refuse columns that can't be told apart, or lack the key, before anything is read.

    Raises `SourceError` and `KeyFieldMissing`.
    """
    from rundiff.errors import KeyFieldMissing, SourceError

    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(
            f"{label} has more than one column {', '.join(map(repr, twice))}: rename them by AS."
        )
    missing = [name for name in primary_key if name not in names]
    if missing:
        raise KeyFieldMissing(
            f"{label} has no column {missing[0]}, which the primary key names; it has {', '.join(names[:20])}. "
            "Choose another --key, or mend the source."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One database of a server, and how to log in to it."""

    scheme: str
    host: str | None
    """None: what the driver takes by default."""
    port: int
    database: str
    user: str | None
    password: str | None = field(repr=False)
    options: Mapping[str, str]
    """What follows the `?`."""

    @property
    def address(self) -> str:
        """The database for people and for the sync's identity: without user, password and options."""
        host = (self.host or self.options.get("host") or self.options.get("unix_socket") or "").lower()
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{self.port}/{self.database}"

    def hushed(self, text: str) -> str:
        """Bring a driver's message to one line without the password."""
        line = " ".join(text.split()).removesuffix(".")
        return line.replace(self.password, "…") if self.password else line


def parse_server(url: str, scheme: str, port: int, options: Sequence[str] | None = None) -> Server:
    """Read `scheme://user:password@host:port/database?option=value`; parts are percent-decoded.

    `options` are the only ones that are known; None takes any. Raises `ConfigurationError`, whose
    message never repeats the URL.
    """
    try:
        split = urlsplit(url)
        given = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
        chosen = split.port or port
    except ValueError:
        raise ConfigurationError(
            f"The source's URL can't be read: write it as {scheme}://USER:PASSWORD@HOST:{port}/DATABASE, with "
            "other characters than letters, digits and -._~ percent-encoded."
        ) from None
    secret = next((name for name in given if name.lower() in _SECRETS), None)
    if secret is not None:
        raise ConfigurationError(
            f"The source's URL holds {secret} behind the question mark, where it might be shown: "
            f"write it before the host, as in {scheme}://USER:PASSWORD@HOST/DATABASE."
        )
    unknown = [] if options is None else [name for name in given if name not in options]
    if unknown:
        raise ConfigurationError(
            f"A source {scheme}:// knows no option {unknown[0]}: use one of {', '.join(sorted(options or ()))}."
        )
    database = unquote(split.path.removeprefix("/"))
    if not database or split.fragment:
        raise ConfigurationError(
            f"A source {scheme}:// needs the name of a database: {scheme}://USER:PASSWORD@HOST/DATABASE."
        )
    return Server(
        scheme=scheme,
        host=unquote(split.hostname) if split.hostname else None,
        port=chosen,
        database=database,
        user=None if split.username is None else unquote(split.username),
        password=None if split.password is None else unquote(split.password),
        options=given,
    )


def database_file(url: str, scheme: str) -> Path:
    """Read the path of `scheme:///relative` or `scheme:////absolute`, and resolve it.

    The path stands as it is written, without percent decoding, as in SQLAlchemy's URLs. Raises
    `ConfigurationError` for databases in memory, options and hosts.
    """
    rest = url.partition("://")[2]
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", ":memory:"):
        raise ConfigurationError(
            f"A source {scheme}:// needs the path of a file: {scheme}:///relative.db or {scheme}:////absolute.db."
        )
    if "?" in path or "\0" in path:
        raise ConfigurationError(f"A source {scheme}:// takes no options: leave out what follows the path.")
    return Path(os.path.realpath(path))
