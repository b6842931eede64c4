"""What is read from a database: a table or a query, and where databases are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rundiff.errors import ConfigurationError
from rundiff.settings import SourceOptions
from rundiff.sqlnames import quote, table_parts

__all__ = ["Selection", "check_result", "database_file"]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
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
        return cls(table=table_parts(options.table or "", "--table"))

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
        return ".".join(part if set(part) <= _PLAIN else quote(part) for part in self.table)

    def relation(self, quoted: Sequence[str]) -> str:
        """What stands behind FROM; `quoted` are the parts of the table's name as the database quotes them."""
        # A comment may end the query, hence the line of its own.
        return f"({self.query}\n) AS rundiff_source" if self.query else ".".join(quoted)


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
