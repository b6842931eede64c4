"""`rundiff sync` out of databases, through the command and from Python."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PASSWORD

import rundiff
from rundiff.cli import main
from rundiff.settings import SourceOptions
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest


def command(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command: its exit code, the object of --json, and all that it said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    told = out.getvalue()
    return code, json.loads(told) if told.startswith("{") else {}, told + err.getvalue()


class Origin:
    """A database of any kind with a table `people`, and how to change it."""

    def __init__(self, url: str, mariadb: MariadbServer | None = None) -> None:
        self.url, self._mariadb = url, mariadb
        self.do("CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(40), born DATE)")
        for row in ("1, 'Ada', '1815-12-10'", "2, 'Bob', NULL", "3, 'Cem', '2000-02-29'"):
            self.do(f"INSERT INTO people VALUES ({row})")

    def do(self, sql: str) -> None:
        if self.url.startswith("postgresql"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(sql.encode())
        elif self._mariadb is not None:
            opened = self._mariadb.connect(self.url.rpartition("/")[2])
            with contextlib.closing(opened) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
        elif self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.url[10:], isolation_level=None)) as connection:
                connection.execute(sql)
        else:
            with duckdb.connect(self.url[10:]) as connection:
                connection.execute(sql)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite", "duckdb"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Origin:
    if request.param == "postgresql":
        return Origin(request.getfixturevalue("postgresql_url"))
    if request.param == "mariadb":
        return Origin(request.getfixturevalue("mariadb_url"), request.getfixturevalue("mariadb_server"))
    return Origin(f"{request.param}:///{tmp_path}/origin.db")


def delivered(folder: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "crm.db")) as connection:
        return connection.execute("SELECT id, name, born FROM people ORDER BY id").fetchall()


@pytest.mark.parametrize("what", [("--table", "people"), ("--query", "SELECT * FROM people;")])
def test_creates_updates_and_deletes(origin: Origin, tmp_path: Path, what: tuple[str, str]) -> None:
    given = ["sync", origin.url, *what, "--key", "id", "--to", f"sqlite:///{tmp_path}/crm.db"]
    given += ["--into", "people", "--json"]
    code, told, text = command(*given)
    assert code == 0, text
    assert (told["created"], told["complete"]) == (3, True)
    if what[0] == "--table":
        assert told["sync"] == "people"
    assert delivered(tmp_path) == [
        (1, "Ada", "1815-12-10"),
        (2, "Bob", None),
        (3, "Cem", "2000-02-29"),
    ]
    origin.do("UPDATE people SET name = 'Ida' WHERE id = 1")
    origin.do("DELETE FROM people WHERE id = 2")
    origin.do("INSERT INTO people VALUES (4, 'Dea', NULL)")
    code, told, text = command(*given)
    assert code == 0, text
    assert [told[name] for name in ("created", "updated", "deleted", "unchanged")] == [1, 1, 1, 1]
    assert delivered(tmp_path) == [(1, "Ida", "1815-12-10"), (3, "Cem", "2000-02-29"), (4, "Dea", None)]
    assert command(*given)[1]["unchanged"] == 3


def test_from_postgresql_to_postgresql(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE items (id uuid PRIMARY KEY, price numeric(12, 3), made timestamptz, tags text[], more jsonb)"
        )
        connection.execute(
            "INSERT INTO items SELECT gen_random_uuid(), i * 1.125, '2024-01-01'::timestamptz + i * interval '1 h', "
            "ARRAY['a', i::text, NULL], jsonb_build_object('i', i) FROM generate_series(1, 5000) AS i"
        )
        names = "id, price, made, tags, more::text"
        same = f"SELECT count(*) FROM (SELECT {names} FROM items EXCEPT SELECT {names} FROM copied) AS d"
        for change, expected in (
            ("SELECT 1", (5000, 0, 0)),
            ("UPDATE items SET price = price + 1 WHERE price < 1000", (0, 888, 0)),
            ("DELETE FROM items WHERE price > 5600", (0, 0, 23)),
        ):
            connection.execute(change.encode())
            result = rundiff.sync(
                postgresql_url, table="items", primary_key="id", destination=postgresql_url, into="copied"
            )
            assert (result.counts.created, result.counts.updated, result.counts.deleted) == expected
            assert connection.execute(same.encode()).fetchone() == (0,)
        [types] = connection.execute(
            "SELECT array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'copied'::regclass AND attnum > 0"
        ).fetchall()
    assert types[0] == ["uuid", "numeric(12,3)", "timestamp with time zone", "text[]", "json"]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_source_and_destination_in_one_file(kind: str, tmp_path: Path) -> None:
    origin = Origin(f"{kind}:///{tmp_path}/both.db")
    for _ in range(2):
        result = rundiff.sync(
            origin.url, table="people", primary_key="id", destination=origin.url, into="copied"
        )
    assert result.counts.unchanged == 3


def test_a_writer_does_not_disturb_the_reading(origin: Origin) -> None:
    if origin.url.startswith("duckdb"):
        pytest.skip("a DuckDB file belongs to one process, and this one has it open for reading")
    origin.do("DELETE FROM people")
    if origin.url.startswith("sqlite"):
        origin.do("PRAGMA journal_mode = WAL")
    many = ", ".join(f"({n}, '{'x' * 40}', NULL)" for n in range(5000))
    origin.do(f"INSERT INTO people VALUES {many}")
    for start in range(1, 30):
        origin.do(f"INSERT INTO people SELECT id + {5000 * start}, name, born FROM people WHERE id < 5000")
    options = SourceOptions(table="people")
    ids: list[int] = []
    with open_source(origin.url, options).open(ReadRequest(options=options, primary_key=("id",))) as reading:
        for number, batch in enumerate(reading):
            ids += batch.records["id"].to_pylist()
            if number == 0:
                # Rows move behind and before the reader, and as many go as come.
                origin.do("DELETE FROM people WHERE id >= 145000")
                origin.do("UPDATE people SET id = -1 - id WHERE id > 100000")
                origin.do(
                    "INSERT INTO people SELECT id + 1000000, name, born FROM people WHERE id BETWEEN 0 AND 4999"
                )
        assert reading.end.incomplete == ()
    assert sorted(ids) == list(range(150_000))


def test_a_query_that_gives_other_rows_each_time_deletes_nothing(postgresql_url: str, tmp_path: Path) -> None:
    steady = "SELECT i AS id FROM generate_series(1, 200) AS i"
    given = {"primary_key": "id", "destination": f"sqlite:///{tmp_path}/crm.db", "into": "t", "name": "n"}
    rundiff.sync(postgresql_url, query=steady, **given)  # type: ignore[arg-type]  # one dict for all
    fewer = f"{steady} WHERE i > 5 OR current_query() LIKE 'SELECT count%'"
    result = rundiff.sync(postgresql_url, query=fewer, **given)  # type: ignore[arg-type]  # as above
    assert result.counts.records_read == 195
    assert result.counts.deleted == 0
    assert not result.complete
    assert any("counts 200 in the same snapshot" in warning for warning in result.warnings)
    result = rundiff.sync(postgresql_url, query=fewer, count_rows=False, **given)  # type: ignore[arg-type]  # as above
    assert result.complete
    assert result.counts.deleted == 5


def test_what_is_read_is_part_of_a_sync_without_a_name(origin: Origin, tmp_path: Path) -> None:
    to = ["--key", "id", "--to", f"sqlite:///{tmp_path}/crm.db", "--into", "people", "--json"]
    assert command("sync", origin.url, "--query", "SELECT * FROM people", *to)[0] == 0
    code, _, text = command("sync", origin.url, "--query", "SELECT * FROM people WHERE id < 9", *to)
    assert code == 2
    assert "--name" in text


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ([], ["--table", "--query"]),
        (["--table", "people", "--query", "SELECT 1 AS id"], ["--table", "--query", "not both"]),
        (["--table", "a.b.c"], ["--table SCHEMA.TABLE"]),
        (["--query", " ; "], ["empty"]),
    ],
)
def test_a_database_needs_a_table_or_a_query(
    origin: Origin, tmp_path: Path, what: list[str], words: list[str]
) -> None:
    code, _, text = command("sync", origin.url, *what, "--key", "id", "--to", f"{tmp_path}/c.jsonl")
    assert code == 2
    assert all(word in text for word in words)
    assert PASSWORD not in text


def test_other_sources_take_neither(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    for flag in ("--table", "--query"):
        code, _, text = command(
            "sync", f"{tmp_path}/a.csv", flag, "x", "--key", "id", "--to", f"{tmp_path}/c.jsonl"
        )
        assert code == 2
        assert f"{flag} is for URLs of databases" in text


def test_passwords_and_queries_are_nowhere(
    postgresql_url: str, mariadb_url: str, tmp_path: Path, home: Path
) -> None:
    for number, url in enumerate([postgresql_url, mariadb_url]):
        to = ["--key", "id", "--to", f"{tmp_path}/c{number}.jsonl", "--name", f"s{number}"]
        asked = "SELECT 1 AS id, CASE WHEN 'hush-hush' = 'x' THEN 1 END AS a"
        shown = [
            command("sync", url, "--query", asked, *to),
            command("sync", url, "--table", "missing", *to),
            command("sync", f"{url}_missing", "--table", "t", *to),
            command("sync", f"{url}?password={PASSWORD}", "--table", "t", *to),
            command("sync", url.replace(PASSWORD, "wrong-word"), "--table", "t", *to),
            command("status"),
            command("show", f"s{number}"),
        ]
        assert [code for code, _, _ in shown] == [0, 1, 1, 2, 1, 0, 0], [text for _, _, text in shown]
        texts = "".join(text for _, _, text in shown)
        assert PASSWORD not in texts
        assert "hush-hush" not in texts
        assert "wrong-word" not in texts
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not [data for data in kept if PASSWORD.encode() in data or b"hush-hush" in data]


def test_from_the_project_file(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORIGIN", origin.url)
    (tmp_path / "rundiff.toml").write_text(
        '[sync.crm]\nsource = "${ORIGIN}"\ntable = "people"\nkey = "id"\nto = "sqlite:///crm.db"\ninto = "people"\n'
    )
    code, told, text = command("sync", "--json")
    assert code == 0, text
    assert told["created"] == 3
