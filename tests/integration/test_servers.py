"""`rundiff sync` into real database servers, through the command."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PASSWORD

from rundiff.cli import main
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def command(*arguments: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return Result(code, out.getvalue(), err.getvalue())


def source(folder: Path, *lines: str) -> str:
    path = folder / "people.csv"
    path.write_text("\n".join(["id,name", *lines]) + "\n")
    return str(path)


class Server:
    """A database of one of the two kinds, and how to ask it."""

    def __init__(self, url: str, mariadb: MariadbServer | None = None) -> None:
        self.url, self._mariadb = url, mariadb

    def ask(self, sql: str) -> list[dict[str, Any]]:
        if self._mariadb is None:
            with psycopg.connect(self.url, row_factory=dict_row) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        import pymysql.cursors

        name = self.url.rpartition("/")[2]
        opened = self._mariadb.connect(name, cursorclass=pymysql.cursors.DictCursor)
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "postgresql":
        return Server(request.getfixturevalue("postgresql_url"))
    return Server(request.getfixturevalue("mariadb_url"), request.getfixturevalue("mariadb_server"))


def run(server: Server, path: str, mode: str, *more: str, into: str = "people") -> Result:
    given = ["sync", path, "--key", "id", "--name", "people", "--to", server.url, "--into", into]
    return command(*given, "--mode", mode, "--json", *more)


def played(server: Server, folder: Path, mode: str, into: str = "people") -> None:
    """Run three times: 1 and 2 appear; 1 changes and 2 goes; 2 comes back."""
    for lines in (["1,Ada", "2,Bob"], ["1,Ida"], ["1,Ida", "2,Bob"]):
        result = run(server, source(folder, *lines), mode, into=into)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["status"] == "committed"


def test_mirror(server: Server, tmp_path: Path) -> None:
    played(server, tmp_path, "mirror")
    assert server.ask("SELECT * FROM people ORDER BY id") == [
        {"id": 1, "name": "Ida"},
        {"id": 2, "name": "Bob"},
    ]


def test_soft_delete(server: Server, tmp_path: Path) -> None:
    played(server, tmp_path, "soft_delete")
    assert run(server, source(tmp_path, "2,Bob"), "soft_delete").exit_code == 0
    found = server.ask("SELECT * FROM people ORDER BY id")
    assert [(row["id"], row["name"], row["deleted_at"] is None) for row in found] == [
        (1, "Ida", False),
        (2, "Bob", True),
    ]


def test_append(server: Server, tmp_path: Path) -> None:
    played(server, tmp_path, "append")
    found = server.ask("SELECT * FROM people ORDER BY _rundiff_run, _rundiff_sequence")
    names = ("_rundiff_run", "_rundiff_sequence", "_rundiff_action", "name")
    assert sorted(tuple(row[name] for name in names) for row in found if row["id"] == 2) == [
        (1, next(row["_rundiff_sequence"] for row in found if row["id"] == 2), "insert", "Bob"),
        (2, 1, "delete", "Bob"),
        (3, 1, "insert", "Bob"),
    ]
    assert len(found) == 5


def test_history_into_a_schema(server: Server, tmp_path: Path) -> None:
    server.ask("CREATE SCHEMA crm_history" if server.url.startswith("postgresql") else "SELECT 1")
    schema = "crm_history" if server.url.startswith("postgresql") else server.url.rpartition("/")[2]
    played(server, tmp_path, "history", into=f"{schema}.people")
    found = server.ask(f"SELECT * FROM {schema}.people ORDER BY id, valid_from")
    assert [(row["id"], row["name"], bool(row["is_current"])) for row in found] == [
        (1, "Ada", False),
        (1, "Ida", True),
        (2, "Bob", False),
        (2, "Bob", True),
    ]
    assert found[0]["valid_to"] == found[1]["valid_from"] == found[2]["valid_to"]
    assert found[3]["valid_to"] is None


def test_another_mode_is_refused(server: Server, tmp_path: Path) -> None:
    path = source(tmp_path, "1,Ada")
    assert run(server, path, "mirror").exit_code == 0
    result = run(server, path, "history")
    assert result.exit_code == 2
    assert "--name" in result.stderr
    assert "rundiff reset people" in result.stderr


def test_held_deletions_are_approved_in_the_syncs_own_mode(
    server: Server, tmp_path: Path, home: Path
) -> None:
    path = source(tmp_path, "1,Ada", "2,Bob")
    assert run(server, path, "soft_delete").exit_code == 0
    path = source(tmp_path, "1,Ada")
    assert run(server, path, "soft_delete", "--max-deletes", "0").exit_code == 3
    with Workspace(Storage(home=str(home))) as workspace:  # the stored URL has no password
        workspace.approve("people", destination_url=server.url)
    found = server.ask("SELECT id, deleted_at FROM people ORDER BY id")
    assert [(row["id"], row["deleted_at"] is None) for row in found] == [(1, True), (2, False)]


def test_passwords_are_nowhere(
    server: Server, tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = source(tmp_path, "1,Ada")
    shown = [
        run(server, path, "mirror"),
        command("status"),
        command("show", "people"),
        command("sync", path, "--key", "id", "--name", "b", "--to", f"{server.url}_missing", "--into", "t"),
        command(
            "sync",
            path,
            "--key",
            "id",
            "--name",
            "c",
            "--to",
            f"{server.url}?password={PASSWORD}",
            "--into",
            "t",
        ),
        command(
            "sync", path, "--key", "id", "--name", "d", "--to", server.url.replace("@", "/@"), "--into", "t"
        ),
    ]
    assert [result.exit_code for result in shown] == [0, 0, 0, 1, 2, 2]
    assert not [result.output for result in shown if PASSWORD in result.output]
    assert PASSWORD not in caplog.text
    kept = [path for path in home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == []


def test_refused_records_are_set_aside(server: Server, tmp_path: Path) -> None:
    server.ask("CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR(5))")
    lines = [f"{n},ok" for n in range(100)]
    lines[41] = "41,much too long"
    result = run(server, source(tmp_path, *lines), "mirror")
    assert result.exit_code == 4, result.output
    assert server.ask("SELECT count(*) AS n FROM people") == [{"n": 99}]
    lines[41] = "41,short"
    assert run(server, source(tmp_path, *lines), "mirror").exit_code == 0
    assert server.ask("SELECT name FROM people WHERE id = 41") == [{"name": "short"}]
