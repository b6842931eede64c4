"""Databases as sources: the one place that knows which schemes there are.

A source reads a table, or what a query gives, in one snapshot, and streams it. `SELECT count(*)` over the
same in the same snapshot proves that the reading was complete (design section 2). It costs what the
database takes to count: for a table a fraction of the reading, for a query another execution of it;
`count_rows = false` leaves it out, and then the server's own word that it sent everything is the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from rundiff.settings import SourceOptions
from rundiff.sources.sqlselection import Selection

if TYPE_CHECKING:
    from rundiff.sources.contract import Source

__all__ = ["DATABASES", "open_database"]

DATABASES = {
    "postgresql": "rundiff.sources.postgresql:PostgresqlSource",
    "postgres": "rundiff.sources.postgresql:PostgresqlSource",
    "mysql": "rundiff.sources.mysql:MysqlSource",
    "mariadb": "rundiff.sources.mysql:MysqlSource",
    "sqlite": "rundiff.sources.sqlite:SqliteSource",
    "duckdb": "rundiff.sources.duckdb:DuckdbSource",
}
"""The class of each scheme: takes the URL and the selection, and touches nothing before it is opened."""


def open_database(url: str, scheme: str, options: SourceOptions) -> Source:
    """Give the source that a database's URL and `table` or `query` name; nothing is touched yet.

    Raises `ConfigurationError` unless exactly one of both is given, and for a URL that can't be read.
    """
    module, _, name = DATABASES[scheme].partition(":")
    made: Callable[[str, Selection], Source] = getattr(import_module(module), name)
    return made(url, Selection.of(options, scheme))
