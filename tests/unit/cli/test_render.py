"""What people get to see of views, as plain text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import pytest
from rich.console import RenderableType

from rundiff.cli.console import console
from rundiff.cli.invocation import Invocation
from rundiff.cli.render_plan import history_text, plan_text
from rundiff.cli.render_runs import run_text, runs_table, schema_table, status_text, summary
from rundiff.engine.views import Change, FieldSchema
from rundiff.model import Action, Counts, RunKind, RunResult, RunStatus

from . import views


def text(renderables: Iterable[RenderableType]) -> str:
    stream = io.StringIO()
    Invocation().show(renderables, stream)
    return stream.getvalue()


def same(value: str) -> str:
    return value


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_summary_is_a_line_for_each_sync() -> None:
    failed = RunResult(sync="crm", run=None, status=RunStatus.FAILED, error="the destination is gone")
    approved = views.result("orders", run=12, kind=RunKind.APPROVE, seconds=71.26)
    assert text(summary([(views.result(), None), (failed, None), (approved, None)], same)) == (
        "sync    run  status                read  +  ~  -  held    time\n"
        "people    3  committed            1,000  2  1  1         0.4 s\n"
        "crm          failed                   0  0  0  0         0.0 s\n"
        "orders   12  committed (approve)  1,000  2  1  1        71.3 s\n"
    )


def test_a_summary_names_the_commands_that_decide_on_held_deletions() -> None:
    counts = Counts(records_read=880, unchanged=880, deletes_held=120)
    result = views.result("my people", counts=counts)
    details = (views.sync_view("my people", held=views.held()), views.run_view(result))
    told = text(summary([(result, details)], same)).splitlines()
    assert told[1].split() == ["my", "people", "3", "committed", "880", "0", "0", "0", "120", "0.4", "s"]
    assert told[2:] == [
        "my people: held: 120 deletions: 120 of 1,000 records are gone, 12.0 %; the limit is 10 %",
        '    - id=1, region="EU"',
        '    - id=2, region="EU"',
        "    and 118 more",
        f"    deliver it:  rundiff approve 'my people' --digest {views.DIGEST[:12]}",
        "    drop it:     rundiff discard 'my people'",
    ]


def test_a_summary_tells_of_odd_records_warnings_and_why_nothing_was_deleted() -> None:
    counts = Counts(records_read=10, unreadable=7, invalid_keys=1, conflicts=2, failed=1)
    result = views.result(counts=counts, complete=False, warnings=("the field age is new",))
    samples = {
        "unreadable": [f'people.csv, line {n}: "x" is no whole number' for n in range(7)],
        "invalid_keys": ["row 3: id is null"],
        "failed": [],
    }
    run = views.run_view(result, samples=samples, complete_reasons=("7 records were unreadable",))
    told = text(summary([(result, (views.sync_view(), run))], same)).splitlines()[2:]
    assert told == [
        "people: 7 unreadable records",
        *(f'    people.csv, line {n}: "x" is no whole number' for n in range(5)),
        "    and 2 more",
        "people: 1 record without a key",
        "    row 3: id is null",
        "people: 2 keys with different records",
        "people: 1 refused record",
        "people: nothing was deleted: 7 records were unreadable",
        "people: the field age is new",
    ]


def test_messages_go_through_the_mask() -> None:
    result = views.result(warnings=("s3cret turned up",))
    told = text(summary([(result, None)], lambda sentence: sentence.replace("s3cret", "${KEY}")))
    assert "${KEY} turned up" in told
    assert "s3cret" not in told


def test_a_plan_shows_real_changes_field_by_field() -> None:
    counts = Counts(records_read=2000, unchanged=500, created=1235, updated=1, deleted=2)
    plan = views.plan(
        result=views.result(run=None, status=RunStatus.PLANNED, counts=counts), path="my plans/people.plan"
    )
    assert text(plan_text(plan, same)) == (
        "people  2,000 records read, 500 unchanged\n"
        "  + insert  id=4\n"
        '      name: "Ada"\n'
        "      city: null\n"
        "  + and 1,234 more creates\n"
        "  ~ update  id=2\n"
        '      name: "Grace" → "Grace Hopper"\n'
        "  - delete  id=3\n"
        '      name: "Edsger"\n'
        '      city: "Rotterdam"\n'
        "  - and 1 more delete\n"
        "\n"
        "Plan: 1,235 to create, 1 to update, 2 to delete.\n"
        "Deliver exactly this with: rundiff apply 'my plans/people.plan'\n"
    )


def test_a_plan_of_nothing() -> None:
    counts = Counts(records_read=3, unchanged=3)
    plan = views.plan(result=views.result(run=None, status=RunStatus.PLANNED, counts=counts), sample=())
    assert text(plan_text(plan, same)) == "people  3 records read, 3 unchanged\n\nPlan: no changes.\n"


def test_a_plan_says_what_would_be_held_or_skipped() -> None:
    counts = Counts(records_read=3, updated=1, deletes_held=5, unreadable=1, invalid_keys=2)
    result = views.result(run=None, status=RunStatus.PLANNED, counts=counts, warnings=("a new field",))
    told = text(plan_text(views.plan(result=result, sample=(), holds=("5 deletions: too many",)), same))
    assert told.splitlines()[1:] == [
        "  ~ 1 update",
        "",
        "Plan: 0 to create, 1 to update, 0 to delete, 5 deletions held.",
        "Would be held: 5 deletions: too many",
        "Skipped: 1 unreadable record.",
        "Skipped: 2 records without a key.",
        "Warning: a new field",
    ]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            Change(
                action=Action.UPDATE,
                primary_key={"id": 1},
                before=None,
                after={"id": 1, "a": 2},
                changed_fields=None,
            ),
            ["  ~ update  id=1", "      a: (not known) → 2"],
        ),
        (
            Change(
                action=Action.UPDATE,
                primary_key={"id": 1},
                before={"id": 1, "a": None, "gone": "x"},
                after={"id": 1, "a": 2, "new": True},
                changed_fields=None,
            ),
            ["  ~ update  id=1", "      a: null → 2", '      gone: "x" → null', "      new: null → true"],
        ),
        (
            Change(action=Action.DELETE, primary_key={"id": 1}, before=None, after=None, changed_fields=None),
            ["  - delete  id=1"],
        ),
        (
            Change(
                action=Action.CREATE,
                primary_key={"id": 1},
                before=None,
                after={f"f{n}": n for n in range(23)},
                changed_fields=None,
            ),
            ["  + create  id=1", *(f"      f{n}: {n}" for n in range(20)), "      and 3 more fields"],
        ),
    ],
)
def test_one_change(change: Change, lines: Sequence[str]) -> None:
    told = text(history_text([views.entry(change, 1, "failed")])).splitlines()
    assert told == ["run 1  2026-01-02 12:00:00+00:00  failed", *lines]


def test_a_history_is_told_oldest_first() -> None:
    told = text(history_text([views.entry(views.INSERT, 1), views.entry(views.UPDATE, 4)])).splitlines()
    assert [line for line in told if line.startswith("run")] == [
        "run 1  2026-01-02 12:00:00+00:00",
        "run 4  2026-01-02 12:00:00+00:00",
    ]
    assert '      name: "Grace" → "Grace Hopper"' in told


def test_the_status_of_all_syncs() -> None:
    shown = [
        views.sync_view(),
        views.sync_view("orders", running="run 4, process 12 on db1"),
        views.sync_view("crm", held=views.held(what="run", count=9), quarantined=2, last_status="held"),
        views.sync_view(
            "new", last_run=None, last_status=None, last_finished=None, last_counts=None, records=0
        ),
    ]
    told = text(status_text(shown, ["later"], same)).splitlines()
    assert told[0].split() == ["sync", "records", "run", "status", "finished", "+", "~", "-", "held", "set",
                               "aside", "destination"]  # fmt: skip
    assert told[1].split() == ["people", "1,000", "3", "committed", "2026-01-02", "12:00:00Z", "2", "1", "1",
                               "sqlite:////data/crm.db#people"]  # fmt: skip
    assert "running: run 4, process 12 on db1" in told[2]
    assert told[4].split()[:4] == ["new", "0", "never", "run"]
    assert told[5].split() == ["later", "never", "run"]
    assert told[6].startswith("crm: held: the whole run: 120 of 1,000")


def test_no_syncs_yet() -> None:
    assert text(status_text([], [], same)).startswith("No syncs yet. Begin with `rundiff init --example`")


def test_runs() -> None:
    failed = views.run_view(views.result(run=2, status=RunStatus.FAILED, counts=Counts(failed=3)))
    told = text(runs_table([views.run_view(), failed])).splitlines()
    assert told[1].split() == ["people", "3", "committed", "2026-01-02", "12:00:00Z", "1,000", "2", "1", "1",
                               "0.4", "s"]  # fmt: skip
    assert told[2].split()[:3] == ["people", "2", "failed"]
    assert text(runs_table([])) == "No runs yet.\n"


def test_everything_about_one_run() -> None:
    counts = Counts(records_read=12_345, unreadable=2, deletes_held=120)
    result = views.result(counts=counts, complete=False, warnings=("slow",), error="it broke")
    view = views.run_view(
        result, samples={"unreadable": ["line 7: no number"]}, complete_reasons=("the file was cut",)
    )
    told = text(run_text(views.sync_view(held=views.held()), view, same))
    lines = [" ".join(line.split()) for line in told.splitlines()]
    for line in (
        "people, run 3 committed",
        "primary key id, region",
        "complete no",
        "signing key none",
        "records read 12,345",
        "The reading was incomplete: the file was cut",
        "2 unreadable records:",
        "line 7: no number",
        "and 1 more",
        "Warning: slow",
        "Error: it broke",
        f"deliver it: rundiff approve people --digest {views.DIGEST[:12]}",
    ):
        assert line in lines


def test_the_fields_of_a_sync() -> None:
    fields = [
        FieldSchema(name="id", type="int64", role="key"),
        FieldSchema(name="a[b]", type="text", role="compared"),
    ]
    assert text(schema_table(fields)) == "field  type   role\nid     int64  key\na[b]   text   compared\n"
    fields[1] = FieldSchema(name="a[b]", type="text", role="compared", form=("trim", "without a.c"))
    assert text(schema_table(fields)).splitlines()[::2] == [
        "field  type   role      compared as",
        "a[b]   text   compared  trim, without a.c",
    ]


def test_a_pipe_gets_long_lines_whole_and_without_colour() -> None:
    result = views.result("x" * 150, warnings=("w" * 300,))
    told = text(summary([(result, None)], same))
    assert "x" * 150 in told
    assert "w" * 300 in told
    assert "\x1b" not in told


def test_a_terminal_gets_colour_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    console(coloured).print("x", style="red")
    assert "\x1b[31m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    console(plain).print("x", style="bold red")
    assert plain.getvalue() == "x\n"
