"""Several syncs in one command: exit codes, output, and what stops what."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from rundiff.cli.invocation import Invocation
from rundiff.cli.jobs import Job, combined, exit_code, perform
from rundiff.errors import DestinationError, RundiffError, SyncBusy, SyncMismatch
from rundiff.model import Counts, RunResult, RunStatus

from . import views


@pytest.fixture
def invocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invocation:
    monkeypatch.chdir(tmp_path)
    made = Invocation()
    made.home = str(tmp_path / "state")
    return made


def does(name: str, result: RunResult | None = None, **given: bool) -> Job:
    return Job(name, lambda *_: result or views.result(name), **given)


def fails(name: str, error: BaseException, **given: bool) -> Job:
    def work(workspace: object, hook: object) -> RunResult:
        raise error

    return Job(name, work, **given)


@pytest.mark.parametrize(
    ("status", "counts", "code"),
    [
        (RunStatus.COMMITTED, Counts(), 0),
        (RunStatus.COMMITTED, Counts(deletes_held=1), 3),
        (RunStatus.HELD, Counts(), 3),
        (RunStatus.COMMITTED, Counts(failed=1), 4),
        (RunStatus.COMMITTED, Counts(unreadable=1), 4),
        (RunStatus.COMMITTED, Counts(unreadable=1, deletes_held=1), 4),
        (RunStatus.COMMITTED, Counts(invalid_keys=5, conflicts=2, duplicates=1), 0),
        (RunStatus.FAILED, Counts(deletes_held=1), 1),
        (RunStatus.PLANNED, Counts(deletes_held=1, unreadable=1), 0),
    ],
)
def test_the_exit_code_of_one_sync(status: RunStatus, counts: Counts, code: int) -> None:
    assert exit_code(views.result(status=status, counts=counts)) == code


@pytest.mark.parametrize(
    ("codes", "code"),
    [((), 0), ((0, 5, 0), 5), ((5, 3), 3), ((3, 4, 5), 4), ((0, 1, 4, 3, 5), 1), ((2, 4), 2)],
)
def test_the_exit_code_of_several(codes: tuple[int, ...], code: int) -> None:
    assert {combined(order) for order in permutations(codes)} == {code}


def test_json_is_one_object_a_line_and_nothing_else(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    invocation.as_json = True
    busy = SyncBusy("process 12 on db1 runs it; wait with --wait")
    outcomes = perform(invocation, [does("a"), fails("b", busy), does("c")])
    assert [outcome.code for outcome in outcomes] == [0, 5, 0]
    out, err = capsys.readouterr()
    objects = [json.loads(line) for line in out.splitlines()]
    assert [each["sync"] for each in objects] == ["a", "b", "c"]
    assert objects[0] == views.result("a").as_json()
    assert (objects[1]["status"], objects[1]["error"], objects[1]["run"]) == ("failed", str(busy), None)
    assert err == f"rundiff: b: {busy}.\n"


def test_json_keeps_off_the_stream_of_changes(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    invocation.as_json = True
    perform(invocation, [does("a", to_stdout=True), fails("b", DestinationError("broken"), to_stdout=True)])
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["error"] for line in err.splitlines()] == [None, "broken"]


def test_the_summary_keeps_off_the_stream_of_changes(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    perform(invocation, [does("a", to_stdout=True)])
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[1].split()[:3]) == ("", ["a", "3", "committed"])


def test_a_failed_run_tells_how_far_it_came(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    invocation.as_json = True
    error = DestinationError("the disk is full; make room and run again")
    error.result = views.result("a", run=9, status=RunStatus.DELIVERING, counts=Counts(written=40))  # type: ignore[attr-defined]
    assert [outcome.code for outcome in perform(invocation, [fails("a", error)])] == [1]
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["status"], told["written"]) == (9, "failed", 40)
    assert told["error"] == "the disk is full; make room and run again"


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (lambda: RundiffError("x"), True),
        (lambda: SyncMismatch("x"), True),
        (lambda: SyncBusy("x"), True),
        (lambda: ZeroDivisionError("x"), True),
        (None, False),
    ],
)
def test_fail_fast(
    invocation: Invocation,
    capsys: pytest.CaptureFixture[str],
    error: Callable[[], Exception] | None,
    stops: bool,
) -> None:
    first = fails("a", error()) if error else does("a", views.result(counts=Counts(failed=1)))
    outcomes = perform(invocation, [first, does("b"), does("c")], fail_fast=True)
    assert len(outcomes) == (1 if stops else 3)
    assert ("rundiff: not run, because of --fail-fast: b, c." in capsys.readouterr().err) is stops
    assert len(perform(invocation, [fails("a", RundiffError("x")), does("b")])) == 2


def test_an_unforeseen_error_is_one_sentence_and_a_traceback_only_when_asked_for(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    perform(invocation, [fails("a", ZeroDivisionError("division\nby zero"))])
    sentence = (
        "rundiff: an error of Rundiff itself (ZeroDivisionError: division by zero): "
        "run again with --debug and report what it prints.\n"
    )
    assert capsys.readouterr() == ("", sentence)
    invocation.debug = True
    perform(invocation, [fails("a", ZeroDivisionError("division\nby zero"))])
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith(sentence)


def test_what_was_done_is_told_even_when_the_next_is_interrupted(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        perform(invocation, [does("a"), fails("b", KeyboardInterrupt())])
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["a", "3", "committed"]


def test_quiet_leaves_errors_only(invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    invocation.quiet = True
    perform(invocation, [does("a"), fails("b", RundiffError("x"))])
    assert capsys.readouterr() == ("", "rundiff: b: x.\n")


def test_plans_are_told_as_plans(invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("people", lambda *_: views.plan())
    perform(invocation, [job])
    assert "Plan: 2 to create, 1 to update, 1 to delete." in capsys.readouterr().out
    invocation.as_json = True
    perform(invocation, [job])
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["changes"], told["run"]) == ("planned", 4, None)
    assert told["sample"][1] == {
        "action": "update",
        "primary_key": {"id": 2},
        "before": {"id": 2, "name": "Grace", "city": "NY"},
        "after": {"id": 2, "name": "Grace Hopper", "city": "NY"},
        "changed_fields": ["name"],
    }


def test_values_of_the_environment_are_masked_in_json_too(
    invocation: Invocation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_PASSWORD", "hunter2")
    Path("rundiff.toml").write_text(
        '[sync.crm]\nsource = "a.csv"\nkey = "id"\nto = "postgresql://me:${CRM_PASSWORD}@db/crm"\n',
        encoding="utf-8",
    )
    invocation.as_json = True
    perform(invocation, [fails("crm", DestinationError("no entry for hunter2"))])
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    assert json.loads(out)["error"] == "no entry for ${CRM_PASSWORD}"
    assert err == "rundiff: no entry for ${CRM_PASSWORD}.\n"
