"""What a doubtful user tries: functions that return junk, plans that lie about, clocks that go back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.cli import main
from rundiff.engine.workspace import Workspace
from rundiff.errors import PolicyViolation, StateChanged
from rundiff.settings import Storage

Row = dict[str, Any]
TWO = [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}, {"id": 2, "v": "c"}]


def resolved(rows: list[Row], function: Callable[..., Any], folder: Path) -> list[Any]:
    """Sync into a stream; the values that were delivered."""
    target = folder / "out.jsonl"
    rundiff.sync(
        rows, primary_key="id", name="s", destination=str(target), home=folder / "h", on_conflict=function
    )
    return [json.loads(line)["data"] for line in target.read_text().splitlines()]


def changed_in_place(records: list[Row]) -> Row:
    records[0]["v"] = "other"
    return records[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda _: None,
        lambda records: records,
        lambda _: 0,
        lambda records: (record for record in records),
        lambda _: {"id": 1, "v": "merged"},
        lambda _: TWO[2],
        changed_in_place,
    ],
)
def test_a_function_that_returns_none_of_its_records_fails_the_run(
    tmp_path: Path, function: Callable[..., Any]
) -> None:
    with pytest.raises(PolicyViolation, match=r'something else for the key \{"id": 1\}.*Nothing was written'):
        resolved(TWO, function, tmp_path)
    assert not (tmp_path / "out.jsonl").exists()
    assert len(resolved(TWO, lambda records: records[0], tmp_path)) == 2


def test_a_function_that_raises_fails_the_run_and_the_key_is_told(tmp_path: Path) -> None:
    def raising(records: list[Row]) -> Row:
        raise ValueError(f"{len(records)} are too many")

    with pytest.raises(ValueError, match="2 are too many") as raised:
        resolved(TWO, raising, tmp_path)
    assert raised.value.__notes__ == [
        'It was raised by the function of on_conflict, given the records of the key {"id": 1}.'
    ]
    with Workspace(Storage(home=str(tmp_path / "h"))) as workspace:
        [run] = workspace.runs("s")
        assert (str(run.result.status), run.result.error) == ("failed", "ValueError: 2 are too many")


@pytest.mark.parametrize("values", [(1, True), (Decimal("0.5"), 0.5), (0, False)])
def test_a_function_chooses_the_very_record_not_what_python_calls_equal(
    tmp_path: Path, values: tuple[Any, Any]
) -> None:
    for number, wanted in enumerate(values):
        [data] = resolved(
            [{"id": 1, "v": value} for value in values],
            lambda records, number=number: records[number],
            tmp_path / str(number),
        )
        assert data["v"] == (str(wanted) if isinstance(wanted, Decimal) else wanted)
        assert type(data["v"]) is (str if isinstance(wanted, Decimal) else type(wanted))


def test_a_copy_of_a_record_may_be_returned(tmp_path: Path) -> None:
    assert resolved(TWO, lambda records: dict(records[0]), tmp_path)[0]["v"] in ("a", "c")


def test_what_a_plan_holds_can_be_approved_from_its_application_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flow = ["s.csv", "--key", "id", "--to", "out.jsonl", "--max-deletes", "0", "--approval-expires", "12h"]
    Path("s.csv").write_text("id\n1\n2\n")
    assert main(["sync", *flow]) == 0
    Path("s.csv").write_text("id\n1\n")
    assert main(["plan", *flow, "--out", "s.plan"]) == 0
    # Two days later, with nothing run between.
    now = datetime.now(UTC) + timedelta(days=2)
    monkeypatch.setattr("rundiff.database.embedded.EmbeddedDatabase.now", lambda _: now)
    assert main(["apply", "s.plan"]) == 3
    with Workspace(Storage(home=str(tmp_path / "home"))) as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert held.expires_at == now + timedelta(hours=12)
        assert workspace.approve("s", held.digest).counts.deleted == 1


def test_a_plan_of_held_deletions_alone_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flow = ["s.csv", "--key", "id", "--to", "out.jsonl", "--max-deletes", "0"]
    Path("s.csv").write_text("id\n1\n2\n")
    assert main(["sync", *flow]) == 0
    Path("s.csv").write_text("id\n1\n")
    assert main(["plan", *flow]) == 0
    assert "Plan: 0 to create, 0 to update, 0 to delete, 1 deletion held." in capsys.readouterr().out


def test_a_clock_that_was_ahead_puts_no_full_run_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(request: Any) -> list[Row]:
        return [{"id": 1, "at": 1}]

    def run() -> str:
        result = rundiff.sync(
            source, primary_key="id", name="s", destination=str(tmp_path / "out.jsonl"), home=tmp_path,
            scope="incremental", cursor="at", full_every="24h",
        )  # fmt: skip
        return str(result.scope)

    with monkeypatch.context() as ahead:
        wrong = datetime.now(UTC) + timedelta(days=400)
        ahead.setattr("rundiff.database.embedded.EmbeddedDatabase.now", lambda _: wrong)
        assert [run(), run()] == ["full", "incremental"]
    # Else the next full run would be more than a year away.
    assert [run(), run()] == ["full", "incremental"]


def test_approving_what_another_run_replaced_is_refused_in_every_combination(tmp_path: Path) -> None:
    """Grace, a partition and a guard together: what is approved is what was shown, or nothing."""
    rows = [{"id": i, "part": "A" if i < 6 else "B"} for i in range(12)]

    def run(source: list[Row], **options: Any) -> rundiff.Run:
        return rundiff.sync(
            source, primary_key="id", name="s", destination=str(tmp_path / "out.jsonl"), home=tmp_path,
            delete_after_misses=2, max_deletes=0, **options,
        )  # fmt: skip

    run(rows)
    only_a = {"partition": {"part": "A"}}
    assert run(rows[1:6], **only_a).status == "committed"
    held = run(rows[1:6], **only_a)
    assert (held.status, held.counts.deletes_held) == ("held", 1)
    with Workspace(Storage(home=str(tmp_path))) as workspace:
        shown = workspace.show("s")[0].held
        assert shown is not None
        # A full run misses another key for the first time: the same one is held, under the same digest.
        assert run(rows[1:11]).counts.deletes_held == 1
        # Now the other one, too.
        assert run(rows[1:11]).counts.deletes_held == 2
        with pytest.raises(StateChanged, match="is not what"):
            workspace.approve("s", shown.digest)
        # One of them is read again, in a run of its partition alone.
        assert run(rows[:6], **only_a).counts.deletes_held == 0
        now = workspace.show("s")[0].held
        assert now is not None
        assert ([key["id"] for key in now.sample], now.count) == ([11], 1)
        assert workspace.approve("s", now.digest).counts.deleted == 1
        with pytest.raises(StateChanged, match="nothing is held"):
            workspace.approve("s", now.digest)


KILLED = """
import os, rundiff
def rows(kill):
    yield {"id": 1}
    if kill:
        os.kill(os.getpid(), 9)
for kill in (False, True):
    rundiff.sync(rows(kill), primary_key="id", name="s", destination="out.jsonl")
"""


def test_of_a_run_that_was_killed_nothing_is_told_that_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False, timeout=60)
    assert killed.returncode == -9

    def told(status: str) -> None:
        assert main(["show", "s", "--run", "2", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["status"], found["kind"]) == (2, status, "sync")
        assert {found[name] for name in ("baseline", "scope", "complete", "records_read", "deleted")} == {
            None
        }
        assert "cut off before it noted what it found; nothing was delivered" in found["error"]
        assert main(["show", "s", "--run", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"s, run 2  {status}"
        for name in ("scope", "baseline", "complete", "records read", "unchanged"):
            [line] = [line for line in lines if line.startswith(f"  {name} ")]
            assert line.split(name)[1].strip() == "not known"

    told("reading")
    assert main(["runs", "s"]) == 0
    assert re.search(r"\n?s +2 +reading +\S+ \S+\s*\n", capsys.readouterr().out)
    Path("s.csv").write_text("id\n1\n")
    assert main(["sync", "s.csv", "--key", "id", "--name", "s", "--to", "out.jsonl", "--quiet"]) == 0
    told("discarded")
