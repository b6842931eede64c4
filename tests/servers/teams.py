"""Workers on several machines that share a state: on files (then they are one machine), Valkey or PostgreSQL."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

__all__ = ["PLACES", "Row", "Team", "shared", "team"]

Row = dict[str, Any]
PLACES = ("files", "valkey", "postgresql")
_prefixes = itertools.count()


class Team:
    """Machines that share a state, or one machine with the file store, and one destination."""

    def __init__(self, folder: Path, shared: Mapping[str, str], **options: Any) -> None:
        self.folder, self.shared, self.options = folder, shared, options
        folder.mkdir(parents=True, exist_ok=True)

    def given(self, machine: int = 0) -> dict[str, Any]:
        home = self.folder / (f"machine-{machine}" if self.shared else "home")
        destination = f"sqlite:///{self.folder / 'd.db'}"
        return {
            "name": "orders",
            "primary_key": "id",
            "destination": destination,
            "into": "orders",
            "home": home,
            **self.shared,
            **self.options,
        }

    def join(self, run: str, machine: int = 0, **more: Any) -> rundiff.Run:
        return rundiff.Run.join(run=run, **{**self.given(machine), **more})

    def sync(self, rows: list[Row], machine: int = 0, **more: Any) -> rundiff.RunResult:
        return rundiff.sync(rows, **{**self.given(machine), **more})

    def workspace(self, machine: int = 0) -> Workspace:
        return Workspace(Storage(home=str(self.given(machine)["home"]), **self.shared))

    def table(self) -> list[tuple[Any, ...]]:
        if not (self.folder / "d.db").exists():
            return []
        with closing(sqlite3.connect(self.folder / "d.db")) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'orders'").fetchall():
                return []
            return database.execute("SELECT * FROM orders ORDER BY id").fetchall()

    def log(self) -> list[dict[str, Any]]:
        columns = "run_id, sequence, primary_key_signature, data_signature, destination_action, status, data"
        with self.workspace() as workspace:
            found = workspace.sql(
                f"SELECT {columns}, primary_key, changed_fields FROM sync_write_records ORDER BY run_id, sequence"
            )
        # The order of fields in the JSON of a record tells nothing.
        return [
            {**record, "data": record["data"] and json.loads(record["data"])} for record in found.to_pylist()
        ]

    def objects(self) -> list[str]:
        with self.workspace() as workspace:
            backends = workspace.backends()
            [sync] = backends.database.syncs()
            return [name for name in backends.store.names(sync.sync_id) if "share" in name]


@pytest.fixture(params=PLACES)
def shared(request: pytest.FixtureRequest) -> Callable[[], dict[str, str]]:
    """Give a function that names a new shared state each time."""
    if request.param == "files":
        return dict
    url = request.getfixturevalue("postgresql_url")
    opened = {"database": url, "signatures": url}
    if request.param == "valkey":
        opened["signatures"] = request.getfixturevalue("valkey_url")

    def make() -> dict[str, str]:
        number = next(_prefixes)
        made = dict(opened)
        made["database"] = f"{url}?schema=team_{number}"
        if request.param == "valkey":
            made["signatures"] = f"{opened['signatures']}?prefix=team{number}"
        else:
            made["signatures"] = f"{url}?options=-csearch_path%3Dteam_{number}"
        return made

    return make


@pytest.fixture
def team(shared: Callable[[], dict[str, str]], tmp_path: Path) -> Team:
    return Team(tmp_path / "team", shared())
