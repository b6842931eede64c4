"""Looking and acting from end to end: status, runs, show, history, schema, sql, discard, reset, rollback."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rundiff.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _after_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNDIFF_HOME", raising=False)
    Path("rundiff.toml").write_text(
        '[sync.orders]\nsource = "orders.csv"\nkey = ["id", "region"]\nto = "orders.jsonl"\n'
        '[sync.later]\nsource = "later.csv"\nkey = "id"\nto = "later.jsonl"\n',
        encoding="utf-8",
    )
    write("id,region,note\n3,EU,\n3,US,x\n")
    assert main(["sync", "orders"]) == 0
    write('id,region,note\n3,EU,""\n3,US,y\n')
    assert main(["sync", "orders"]) == 0
    capsys.readouterr()


def write(text: str) -> None:
    Path("orders.csv").write_text(text, encoding="utf-8")


def told(capsys: Captured, *arguments: str) -> list[dict[str, Any]]:
    assert main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def said(capsys: Captured, *arguments: str) -> list[str]:
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_status(capsys: Captured) -> None:
    orders, later = told(capsys, "status")
    assert [orders[key] for key in ("sync", "records", "last_run", "last_status", "held")] == [
        "orders", 2, 2, "committed", None,
    ]  # fmt: skip
    assert orders["primary_key"] == ["id", "region"]
    assert orders["destination"] == str(Path("orders.jsonl").absolute())
    assert (later["sync"], later["last_run"]) == ("later", None)
    lines = said(capsys, "status")
    assert lines[1].split()[:4] == ["orders", "2", "2", "committed"]
    assert lines[2].split() == ["later", "never", "run"]


def test_runs_and_show(capsys: Captured) -> None:
    assert [(each["run"], each["status"]) for each in told(capsys, "runs", "orders")] == [
        (2, "committed"),
        (1, "committed"),
    ]
    assert [each["run"] for each in told(capsys, "runs", "--limit", "1")] == [2]
    assert len(said(capsys, "runs")) == 3
    (last,) = told(capsys, "show", "orders")
    (first,) = told(capsys, "show", "orders", "--run", "1")
    assert (last["run"], last["updated"], first["run"], first["created"]) == (2, 2, 1, 2)
    assert first["started_at"] < last["started_at"]
    assert said(capsys, "show", "orders", "--run", "1")[0] == "orders, run 1  committed"


@pytest.mark.parametrize("key", ["3,US", "id=3,region=US", "region=US,id=3"])
def test_history(key: str, capsys: Captured) -> None:
    created, updated = told(capsys, "history", "orders", key)
    assert (created["action"], created["before"], created["after"]["note"]) == ("create", None, "x")
    assert (updated["run"], updated["before"]["note"], updated["after"]["note"]) == (2, "x", "y")
    assert updated["primary_key"] == {"id": 3, "region": "US"}
    assert '      note: "x" → "y"' in said(capsys, "history", "orders", key)


def test_history_of_nothing_and_of_half_a_key(capsys: Captured) -> None:
    assert said(capsys, "history", "orders", "9,EU") == ["No change of this record is known."]
    assert main(["history", "orders", "3"]) == 2
    says = "rundiff: The key has the fields id, region: write it as ID,REGION.\n"
    assert capsys.readouterr().err == says
    assert main(["history", "nobody", "3"]) == 2
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--renamed", "note"], "--renamed takes OLD=NEW, two names of one field; it is note;"),
        (["--renamed", "note=a", "--renamed", "note=b"], "--renamed names note twice"),
        (["--renamed", "note=a", "--renamed", "region=a"], "--renamed names a twice"),
    ],
)
def test_what_is_no_renaming(capsys: Captured, given: list[str], message: str) -> None:
    assert main(["schema", "accept", "orders", *given]) == 2
    assert message in capsys.readouterr().err


def test_schema(capsys: Captured) -> None:
    roles = {each["name"]: each["role"] for each in told(capsys, "schema", "orders")}
    assert roles == {"id": "key", "region": "key", "note": "compared"}
    assert said(capsys, "schema", "orders")[1].split() == ["id", "integer", "key"]


def test_sql(capsys: Captured) -> None:
    query = "select run_id, sequence, data_signature, data->>'note' as note, null as nothing from "
    query += "sync_write_records order by run_id, sequence"
    found = told(capsys, "sql", query)
    assert [each["run_id"] for each in found] == [1, 1, 2, 2]
    assert {len(each["data_signature"]) for each in found} == {64}
    assert {each["note"] for each in found} == {None, "x", "", "y"}
    assert main(["sql", query, "--csv"]) == 0
    text = capsys.readouterr().out
    parsed = list(csv.DictReader(io.StringIO(text)))
    assert [row["data_signature"] for row in parsed] == [each["data_signature"] for each in found]
    assert ',"",\n' in text
    assert ",,\n" in text
    assert said(capsys, "sql", "select 1 as one, 'a' as two") == ["one  two", "  1  a"]
    assert main(["sql", "selec 1"]) == 2
    assert capsys.readouterr().err.startswith("rundiff: ")


def test_sql_with_columns_of_one_name(capsys: Captured) -> None:
    query = "select 1 as a, null as a, 'x' as a_2"
    assert told(capsys, "sql", query) == [{"a": 1, "a_2": None, "a_2_2": "x"}]
    assert said(capsys, "sql", query, "--csv") == ["a,a,a_2", "1,,x"]
    assert said(capsys, "sql", query) == ["a     a  a_2", "1  null  x"]


def test_discard_and_reset(capsys: Captured) -> None:
    write("id,region,note\n")
    assert main(["sync", "orders", "--quiet"]) == 3
    (held,) = told(capsys, "discard", "orders")
    assert (held["sync"], held["what"], held["count"]) == ("orders", "deletions", 2)
    assert main(["discard", "orders"]) == 1
    assert "nothing is held" in capsys.readouterr().err
    assert main(["sync", "orders", "--quiet"]) == 3
    assert said(capsys, "discard", "orders") == [
        "orders: dropped 2 held deletions; the next complete run judges anew."
    ]
    assert said(capsys, "reset", "orders", "--yes") == ["orders: forgotten; the next run sends every record."]
    write("id,region,note\n3,EU,\n")
    (again,) = told(capsys, "sync", "orders", "--full-refresh")
    assert (again["baseline"], again["created"]) == ("first", 1)
    assert again["run"] > 4


def test_rollback_after_the_destination_was_restored(capsys: Captured) -> None:
    arguments = ("orders.csv", "--key", "id,region", "--to", "sqlite:///o.db", "--into", "o", "--name", "o")
    assert main(["sync", *arguments]) == 0
    shutil.copyfile("o.db", "backup.db")
    write("id,region,note\n3,EU,new\n3,US,y\n")
    assert main(["sync", *arguments]) == 0
    capsys.readouterr()
    assert main(["rollback", "o", "--to-run", "1"]) != 0
    assert "rundiff: " in capsys.readouterr().err
    shutil.copyfile("backup.db", "o.db")
    assert said(capsys, "rollback", "o", "--to-run", "1") == ["o: the baseline is that of run 1 again."]
    (again,) = told(capsys, "sync", *arguments)
    assert (again["baseline"], again["unchanged"], again["updated"]) == ("found", 1, 1)


def test_rollback_to_a_run_that_never_was(capsys: Captured) -> None:
    assert main(["rollback", "orders", "--to-run", "99"]) != 0
    assert "99" in capsys.readouterr().err
