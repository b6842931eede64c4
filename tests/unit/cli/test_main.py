"""The command as a whole, without any sync: help, errors, init, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rundiff.cli import main
from rundiff.cli.app import COMMANDS, app
from rundiff.project import load_project

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RUNDIFF_HOME", "RUNDIFF_DATABASE", "RUNDIFF_SIGNATURES", "RUNDIFF_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


def refused(capsys: Captured, *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rundiff: ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err.removeprefix("rundiff: ").rstrip("\n")


@pytest.mark.parametrize("arguments", ["--help", "sync --help", "--version", ""])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['rundiff', *{arguments.split()!r}]\n"
        "from rundiff.cli import main\n"
        "assert main() == 0\n"
        "heavy = {'pyarrow', 'numpy', 'duckdb', 'rich', 'pandas', 'polars', 'ijson', 'cbor2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_lists_all_commands_by_section(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.strip()]
    assert [row for row in rows if row in COMMANDS] == list(COMMANDS)
    for section in ("Run:", "Look:", "Act:", "Set up:"):
        assert section in out
    assert main([]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: rundiff {name}")
    command = app.get_command(app.make_context("rundiff", [name]), name)
    assert command is not None
    assert command.name == name
    assert COMMANDS[name].summary == command.short_help


def test_every_flag_has_a_sentence() -> None:
    for name in COMMANDS:
        command = app.get_command(app.make_context("rundiff", [name]), name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name}: {param.name}"
                assert param.help[0].isupper()
                assert param.help.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["synk"], "There is no command synk (did you mean sync?); see `rundiff --help`."),
        (["sync", "--max-delets", "3"], "No such option '--max-delets' (did you mean"),
        (["sync", "--max-deletes", "x"], "Invalid value for '--max-deletes': 'x' is not a valid integer"),
        (["sync", "--on-existing", "x"], "Invalid value for '--on-existing': 'x' is not one of"),
        (["sync", "a.csv", "--key", "id", "--to", "-", "--types", "id"], "write it as FIELD=TEXT"),
        (["history", "people"], "Missing argument 'KEY'; see `rundiff history --help`."),
        (["sync", "a.csv", "--key", "id"], "A sync without rundiff.toml needs --to too."),
        (["sync", "a.csv", "--to", "-"], "A sync without rundiff.toml needs --key too."),
        (["sync", "--key", "id", "--to", "-"], "--key and --to go with exactly one SOURCE; quote a glob"),
        (["sync", "a", "b", "--key", "id", "--to", "-"], "--key and --to go with exactly one SOURCE"),
        (["sync", "a", "--select", "b", "--key", "id", "--to", "-"], "--select chooses among the syncs"),
        (["sync", "--name", "x"], "--name goes with --key and --to"),
        (["plan", "--into", "x"], "--into goes with --key and --to"),
        (["sync"], "There is nothing to sync: give a source with --key and --to"),
        (["sync", "people.csv"], "There is no rundiff.toml here that could name the sync people.csv"),
        (["sync", "--select", "x*"], "--select x* matches no sync of rundiff.toml."),
        (["sync", "a", "--key", "id", "--to", "-", "--on-conflict", "x"], "`on_conflict` must be one of"),
        (["sync", "a", "--key", "id,id", "--to", "-"], "The primary key must name one field or several"),
        (["sync", "a", "--key", "id", "--to", "-", "--name", "-x"], "The name of a sync must be"),
        (["sync", "a", "--key", "id", "--to", "-", "--max-deletes", "-1"], "`max_deletes` must be a number"),
        (["apply", "gone.plan"], "Invalid value for 'FILE': File 'gone.plan' does not exist"),
        (["sql", "select 1", "--csv", "--json"], "--csv and --json exclude each other"),
        (["sql", "select 1"], "Nothing was synced yet: there is no directory .rundiff;"),
        (["show", "people"], "Nothing was synced yet"),
        (["approve", "people"], "Nothing was synced yet"),
        (["discard", "people"], "Nothing was synced yet"),
        (["approve", "people", "--digest", "ab"], "--digest takes at least 8 hex digits"),
        (["reset", "people"], "Nothing was synced yet"),
        (["rollback", "people"], "Missing option '--to-run'"),
        (["plan", "--detailed-exitcode", "--home"], "Option '--home' requires an argument"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(arguments: list[str], says: str, capsys: Captured) -> None:
    if "--detailed-exitcode" in arguments:
        assert main(arguments) == 1
        assert says in capsys.readouterr().err
    else:
        assert says in refused(capsys, *arguments)
    assert list(Path().iterdir()) == []


def test_a_traceback_only_with_debug(capsys: Captured) -> None:
    assert main(["sync", "people"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["sync", "people", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("rundiff: There is no rundiff.toml here")


def test_a_broken_project_file_is_named(capsys: Captured) -> None:
    Path("rundiff.toml").write_text("[sync.people]\nsorce = 'x'\n", encoding="utf-8")
    told = "[sync.people] of rundiff.toml has an unknown key `sorce` (did you mean source?)."
    for arguments in (["sync"], ["status"], ["sync", "a.csv", "--key", "id", "--to", "-"]):
        assert refused(capsys, *arguments) == told


def test_looking_makes_no_home(capsys: Captured) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("No syncs yet.")
    assert main(["status", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert list(Path().iterdir()) == []


def test_init_writes_a_file_that_works_and_overwrites_nothing(capsys: Captured) -> None:
    assert main(["init"]) == 0
    assert capsys.readouterr().out.startswith("wrote rundiff.toml; ")
    assert load_project(None, {}).syncs == {}
    assert refused(capsys, "sync").startswith("There is nothing to sync")
    before = Path("rundiff.toml").read_bytes()
    assert refused(capsys, "init") == "rundiff.toml is there already, and init overwrites nothing."
    assert Path("rundiff.toml").read_bytes() == before


def test_init_with_an_example(capsys: Captured) -> None:
    Path("people.csv").write_text("id\n1\n", encoding="utf-8")
    assert "people.csv is there already" in refused(capsys, "init", "--example")
    assert not Path("rundiff.toml").exists()
    Path("people.csv").unlink()
    assert main(["init", "--example"]) == 0
    settings = load_project(None, {}).settings("people")
    assert (settings.source, settings.primary_key) == ("people.csv", ("id",))
    assert Path("people.csv").read_text(encoding="utf-8").startswith("id,name,city\n1,")


def test_the_comments_of_the_template_are_a_project_file(capsys: Captured) -> None:
    assert main(["init"]) == 0
    lines = Path("rundiff.toml").read_text(encoding="utf-8").splitlines()
    # Prose begins with a capital; what remains are keys and tables.
    opened = [line.removeprefix("# ") for line in lines if not line[2:3].isupper()]
    Path("rundiff.toml").write_text("\n".join(opened), encoding="utf-8")
    project = load_project(None, {"CRM_URL": "sqlite:///crm.db"})
    assert project.settings("customers").primary_key == ("id", "region")
    assert project.retention_days == 7


def test_doctor_finds_all_well(capsys: Captured) -> None:
    assert main(["init", "--example"]) == 0
    capsys.readouterr()
    assert main(["doctor", "--json"]) == 0
    findings = {each["check"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    for check in ("python", "pyarrow", "duckdb", "signer", "home directory", "file locks", "free space"):
        assert findings[check]["health"] in ("ok", "warning")
    assert findings["project file"]["says"] == "rundiff.toml with 1 sync"
    assert not Path(".rundiff").exists()
    assert main(["doctor"]) == 0
    assert "home directory  ok  .rundiff, made by the first sync\n" in capsys.readouterr().out


def test_doctor_finds_what_is_broken(capsys: Captured) -> None:
    Path("rundiff.toml").write_text(
        '[sync.crm]\nsource = "a"\nkey = "id"\nto = "${CRM_URL_THAT_IS_NOT_SET}"\n', encoding="utf-8"
    )
    Path("state").mkdir()
    (Path("state") / "rundiff.sqlite").write_text("this is no database at all, " * 50, encoding="utf-8")
    assert main(["doctor", "--json", "--home", "state"]) == 1
    findings = {each["check"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    broken = {check for check, each in findings.items() if each["health"] == "broken"}
    assert broken == {"project file", "database"}
    assert "CRM_URL_THAT_IS_NOT_SET" in findings["project file"]["says"]


def test_doctor_names_a_store_that_there_is_not(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNDIFF_SIGNATURES", "memcached://me:hunter2@cache")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken  There is no signature store memcached://" in out
    assert "hunter2" not in out


def test_a_closed_pipe_is_no_error() -> None:
    script = "from rundiff.cli import main; raise SystemExit(main(['doctor', '--json']))"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
