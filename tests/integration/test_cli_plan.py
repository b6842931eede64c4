"""`rundiff plan` and `apply` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rundiff.cli import main

Captured = pytest.CaptureFixture[str]

PLAN = """\
people  3 records read, 1 unchanged
  + insert  id=4
      name: "Alan"
  ~ update  id=2
      name: "Grace" → "Grace Hopper"
  - delete  id=3
      name: "Edsger"

Plan: 1 to create, 1 to update, 1 to delete.
Deliver exactly this with: rundiff apply people.plan
"""


@pytest.fixture(autouse=True)
def _with_a_change_to_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNDIFF_HOME", raising=False)
    Path("rundiff.toml").write_text(
        '[sync.people]\nsource = "people.csv"\nkey = "id"\nto = "sqlite:///people.db"\ninto = "people"\n',
        encoding="utf-8",
    )
    Path("people.csv").write_text("id,name\n1,Ada\n2,Grace\n3,Edsger\n", encoding="utf-8")
    assert main(["sync"]) == 0
    Path("people.csv").write_text("id,name\n1,Ada\n2,Grace Hopper\n4,Alan\n", encoding="utf-8")
    capsys.readouterr()


def test_a_plan_is_shown_as_the_docs_show_it_and_applied_exactly(capsys: Captured) -> None:
    assert main(["plan", "--out", "people.plan"]) == 0
    assert capsys.readouterr().out == PLAN
    docs = Path(__file__).parents[2] / "docs" / "commands.md"
    assert PLAN in docs.read_text(encoding="utf-8")
    Path("people.csv").write_text("id,name\n1,Somebody else\n", encoding="utf-8")
    assert main(["apply", "people.plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [told[key] for key in ("run", "created", "updated", "deleted", "written")] == [2, 1, 1, 1, 3]


def test_a_plan_is_refused_once_the_baseline_has_moved(capsys: Captured) -> None:
    assert main(["plan", "--out", "people.plan", "--quiet"]) == 0
    assert main(["sync", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["apply", "people.plan", "--json", "--name", "people"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "failed"
    assert err.startswith("rundiff: ")


def test_what_is_no_plan_is_refused(capsys: Captured) -> None:
    assert main(["apply", "people.csv"]) == 2
    assert capsys.readouterr().err.startswith("rundiff: ")


def test_exit_codes_in_detail(capsys: Captured) -> None:
    assert main(["plan"]) == 0
    assert main(["plan", "--detailed-exitcode"]) == 2
    assert main(["sync"]) == 0
    assert main(["plan", "--detailed-exitcode"]) == 0
    assert "Plan: no changes." in capsys.readouterr().out
    Path("people.csv").write_text("id,name\n", encoding="utf-8")
    assert main(["plan"]) == 0
    assert main(["plan", "--detailed-exitcode"]) == 2
    assert "Would be held: " in capsys.readouterr().out
    Path("people.csv").unlink()
    assert main(["plan", "--detailed-exitcode"]) == 1
    assert main(["plan", "nobody", "--detailed-exitcode"]) == 1


def test_out_keeps_one_plan(capsys: Captured) -> None:
    with Path("rundiff.toml").open("a", encoding="utf-8") as file:
        file.write('[sync.more]\nsource = "people.csv"\nkey = "id"\nto = "more.jsonl"\n')
    assert main(["plan", "--out", "x.plan"]) == 2
    assert capsys.readouterr().err == "rundiff: --out keeps one plan: name one sync.\n"


def test_a_plan_in_json(capsys: Captured) -> None:
    assert main(["plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["run"], told["changes"], told["path"]) == ("planned", None, 3, None)
    update = next(change for change in told["sample"] if change["action"] == "update")
    assert (update["before"]["name"], update["after"]["name"]) == ("Grace", "Grace Hopper")
    assert update["changed_fields"] == ["name"]
