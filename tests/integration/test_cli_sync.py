"""`rundiff sync` from end to end: files in, SQLite and streams out, exit codes, output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.sqlitefiles import opened

from rundiff.cli import main
from rundiff.model import RunResult, RunStatus

Captured = pytest.CaptureFixture[str]

PEOPLE = "id,name,city\n1,Ada,London\n2,Grace,New York\n3,Edsger,Rotterdam\n"
AD_HOC = ("people.csv", "--key", "id", "--to", "sqlite:///people.db", "--into", "people")
CONTRACT = list(RunResult(sync="x", run=1, status=RunStatus.COMMITTED).as_json())


@pytest.fixture(autouse=True)
def _in_a_directory_with_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNDIFF_HOME", raising=False)
    write(PEOPLE)


def write(text: str, name: str = "people.csv") -> None:
    Path(name).write_text(text, encoding="utf-8")


def rows() -> list[tuple[Any, ...]]:
    with opened("people.db") as database:
        found = database.execute("SELECT id, name, city FROM people ORDER BY id").fetchall()
    database.close()
    return found


def objects(capsys: Captured, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = main([*arguments, "--json"])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def one(capsys: Captured, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, found = objects(capsys, *arguments)
    assert len(found) == 1
    return code, found[0]


def chosen(told: dict[str, Any], keys: str) -> list[Any]:
    return [told[key] for key in keys.split()]


def test_two_runs_deliver_only_what_changed(capsys: Captured) -> None:
    code, first = one(capsys, "sync", *AD_HOC)
    assert code == 0
    assert list(first) == CONTRACT
    assert chosen(first, "sync run status baseline created written") == [
        "people", 1, "committed", "first", 3, 3,
    ]  # fmt: skip
    write("id,name,city\n1,Ada,London\n2,Grace Hopper,New York\n4,Alan,\n")
    code, second = one(capsys, "sync", *AD_HOC)
    assert chosen(second, "run baseline unchanged created updated deleted written") == [
        2, "found", 1, 1, 1, 1, 3,
    ]  # fmt: skip
    assert rows() == [(1, "Ada", "London"), (2, "Grace Hopper", "New York"), (4, "Alan", None)]


def test_the_summary_for_people(capsys: Captured) -> None:
    assert main(["sync", *AD_HOC]) == 0
    out, err = capsys.readouterr()
    header, line = out.splitlines()
    assert header.split() == ["sync", "run", "status", "read", "+", "~", "-", "held", "time"]
    assert line.split()[:7] == ["people", "1", "committed", "3", "3", "0", "0"]
    assert err == ""
    assert main(["sync", *AD_HOC, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_stream_of_changes_has_standard_output_to_itself(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert main(["sync", "people.csv", "--key", "id", "--to", "-", "--json"]) == 0
    out, err = capfdbinary.readouterr()
    changes = [json.loads(line) for line in out.splitlines()]
    assert [
        (change["action"], change["data"]["name"]) for change in changes if change["data"]["id"] == 1
    ] == [("create", "Ada")]
    assert len(changes) == 3
    assert json.loads(err)["created"] == 3


def test_a_held_run_names_the_command_that_approves_it(capsys: Captured) -> None:
    assert main(["sync", *AD_HOC, "--home", "my state"]) == 0
    write("id,name,city\n")
    capsys.readouterr()
    assert main(["sync", *AD_HOC, "--home", "my state"]) == 3
    out = capsys.readouterr().out
    command = next(line for line in out.splitlines() if "rundiff approve" in line).split(": ", 1)[1].strip()
    assert command.endswith("--home 'my state'")
    digest = command.split()[command.split().index("--digest") + 1]
    assert len(rows()) == 3
    wrong = main(["approve", "people", "--digest", "0123456789ab", "--home", "my state"])
    assert wrong == 1
    assert "digest" in capsys.readouterr().err
    code, told = one(capsys, "approve", "people", "--digest", digest, "--home", "my state")
    assert code == 0
    assert chosen(told, "kind status deleted") == ["approve", "committed", 3]
    assert rows() == []


def test_a_failed_run_is_told_in_json_and_in_one_sentence(capsys: Captured) -> None:
    arguments = ["sync", "gone.csv", "--key", "id", "--to", "out.jsonl"]
    assert main([*arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert list(told) == CONTRACT
    assert told["status"] == "failed"
    assert "gone.csv" in told["error"]
    assert err.startswith("rundiff: ")
    assert err.count("\n") == 1
    assert not Path("out.jsonl").exists()
    assert main(arguments) == 1
    assert capsys.readouterr() == ("", err)


def test_another_key_is_refused(capsys: Captured) -> None:
    assert main(["sync", *AD_HOC, "--name", "people"]) == 0
    capsys.readouterr()
    other = (
        "people.csv",
        "--key",
        "name",
        "--to",
        "sqlite:///people.db",
        "--into",
        "people",
        "--name",
        "people",
    )
    assert main(["sync", *other]) == 2
    assert "reset" in capsys.readouterr().err
    assert main(["reset", "people", "--yes"]) == 0


def test_unreadable_records_are_told_with_samples(capsys: Captured) -> None:
    assert main(["sync", *AD_HOC]) == 0
    write(PEOPLE + "four,Alan,Wilmslow\n")
    capsys.readouterr()
    assert main(["sync", *AD_HOC]) == 4
    out = capsys.readouterr().out
    assert "people: 1 unreadable record\n" in out
    assert "people.csv" in out.split("1 unreadable record\n")[1].splitlines()[0]


def test_several_syncs_go_on_after_a_failure_unless_told_otherwise(capsys: Captured) -> None:
    table = '[sync.{0}]\nsource = "{0}.csv"\nkey = "id"\nto = "{0}.jsonl"\n'
    write("".join(table.format(name) for name in ("a", "b", "people")), "rundiff.toml")
    write("id\n1\n", "b.csv")
    code, found = objects(capsys, "sync")
    assert (code, [each["status"] for each in found]) == (1, ["failed", "committed", "committed"])
    code, found = objects(capsys, "sync", "--fail-fast")
    assert (code, [each["sync"] for each in found]) == (1, ["a"])
    code, found = objects(capsys, "sync", "--select", "b,p*")
    assert (code, [each["unchanged"] for each in found]) == (0, [1, 3])


def test_a_file_of_syncs_with_options_and_secrets(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        'home = "state"\n[defaults]\nallow_empty = true\n[sync.crm]\nsource = "${PLACE}/people.csv"\n'
        'key = "id"\nto = "sqlite:///people.db"\ninto = "people"\n',
        "rundiff.toml",
    )
    assert main(["sync"]) == 2
    assert "PLACE, which is not set" in capsys.readouterr().err
    monkeypatch.setenv("PLACE", str(Path.cwd()))
    assert main(["sync"]) == 0
    assert Path("state/rundiff.sqlite").exists()
    write("id,name,city\n")
    capsys.readouterr()
    code, told = one(capsys, "sync", "crm")
    assert (code, told["deleted"]) == (0, 3)
    assert main(["show", "crm", "--json"]) == 0
    assert str(Path.cwd()) + "/people.csv" not in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--dry-run"], ["--dry-run", "--json"]])
def test_a_dry_run_changes_nothing(flags: Sequence[str], capsys: Captured) -> None:
    assert main(["sync", *AD_HOC, *flags]) == 0
    assert "create" in capsys.readouterr().out
    assert not Path("people.db").exists()
    code, told = one(capsys, "sync", *AD_HOC)
    assert (code, told["run"]) == (0, 1)


def test_init_then_sync_works_at_once(capsys: Captured) -> None:
    Path("people.csv").unlink()
    assert main(["init", "--example"]) == 0
    assert main(["sync"]) == 0
    assert len(rows()) == 3
    assert main(["doctor", "--json"]) == 0
    capsys.readouterr()
    Path("people.db").unlink()
    assert main(["doctor"]) == 1
    assert "its destination is missing" in capsys.readouterr().out
