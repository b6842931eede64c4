"""One sync into one SQLite table, for tests that damage its surroundings."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

__all__ = ["World", "rows"]

Row = dict[str, Any]


def rows(*ids: int, v: str = "a") -> list[Row]:
    return [{"id": each, "v": v} for each in ids]


@dataclass
class World:
    """A folder with a home, a destination and copies of them."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def destination(self) -> Path:
        return self.folder / "d.db"

    def sync(self, source: Any, **options: Any) -> rundiff.Sync:
        given = {"name": "s", "destination": f"sqlite:///{self.destination}", "into": "t", **options}
        return rundiff.Sync(source, "id", home=self.home, **given)

    def run(self, source: Any, **options: Any) -> rundiff.Run:
        return self.sync(source, **options).run()

    def table(self) -> dict[int, str]:
        with contextlib.closing(sqlite3.connect(self.destination)) as database:
            found = database.execute("SELECT id, v FROM t").fetchall()
        assert len(found) == len(dict(found))
        return dict(found)

    def sql(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.destination)) as database:
            database.executescript(statement)

    def log(self) -> dict[int, str]:
        """Replay the write log of the runs that count."""
        state: dict[int, str] = {}
        with self.workspace() as workspace:
            found = workspace.sql(
                "SELECT destination_action AS action, (primary_key->>'id')::INT AS id, data->>'v' AS v "
                "FROM sync_write_records WHERE status = 'written' ORDER BY run_id, sequence"
            ).to_pylist()
        for record in found:
            if record["action"] == "delete":
                del state[record["id"]]
            else:
                state[record["id"]] = record["v"]
        return state

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home)))

    def keep(self, *names: str) -> None:
        """Copy files or folders aside."""
        for name in names:
            source, copy = self.folder / name, self.folder / "kept" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if copy.is_dir():
                shutil.rmtree(copy)
            shutil.copytree(source, copy) if source.is_dir() else shutil.copyfile(source, copy)

    def restore(self, *names: str) -> None:
        """Bring the copies back."""
        for name in names:
            target, copy = self.folder / name, self.folder / "kept" / name
            if copy.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(copy, target)
            else:
                shutil.copyfile(copy, target)

    def signatures(self) -> list[Path]:
        return [path for path in (self.home / "signatures").rglob("*") if path.is_file()]
