"""Random histories of scopes, grace, marks, guards and approvals against the naive model."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.errors import PolicyViolation, StateChanged
from rundiff.settings import Storage
from tests.property.model import Judged, ScopedModel, Step, content

rows = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5),
        "part": st.sampled_from([None, "A", "B", "C"]),
        "v": st.integers(0, 1),
        "gone": st.sampled_from([None, False, True]),
    }
)
scopes = st.one_of(
    st.tuples(st.sampled_from(["full", "incremental"]), st.none()),
    st.tuples(st.just("partition"), st.none()),
    st.tuples(st.just("partition"), st.frozensets(st.sampled_from(["A", "B", "C"]), min_size=1)),
)
steps = st.builds(
    lambda rows, scope, **more: Step(rows=rows, scope=scope[0], named=scope[1], **more),
    rows=st.lists(rows, max_size=7),
    scope=scopes,
    complete=st.sampled_from([True, True, True, False]),
    max_deletes=st.sampled_from([None, None, 0, 1]),
    on_guard=st.sampled_from(["hold_deletes", "hold_deletes", "hold_run", "fail"]),
)
histories = st.lists(st.one_of(steps, steps, steps, st.just("approve")), min_size=2, max_size=8)


class Checked:
    """One sync into SQLite, and the model of it."""

    def __init__(self, folder: str, model: ScopedModel) -> None:
        self.folder = folder
        self.model = model
        self.path = Path(folder) / "d.db"
        self.options: dict[str, Any] = {"delete_after_misses": model.delete_after, "max_delete_percent": 100}
        if model.marks:
            self.options["deleted_when"] = "gone"

    def run(self, step: Step) -> None:
        options = {**self.options, "on_guard": step.on_guard, "scope": step.scope}
        if step.max_deletes is not None:
            options["max_deletes"] = step.max_deletes
        if not step.complete:
            options["expected_rows"] = len(step.rows) + 1
        if step.scope == "partition" and step.named is not None:
            options["partition"] = {"part": sorted(step.named)}
        elif step.scope == "partition":
            options["partition_by"] = ["part"]
        expected = self.model.run(step)
        try:
            result = rundiff.sync(
                list(step.rows),
                primary_key="id",
                name="s",
                destination=f"sqlite:///{self.path}",
                into="t",
                home=self.folder,
                on_dropped_field="update",
                **options,
            )
        except PolicyViolation:
            assert expected.refused
            return
        self.compare(result, expected, step)

    def compare(self, result: rundiff.Run, expected: Judged, step: Step) -> None:
        assert not expected.refused
        counts = result.counts
        assert (result.scope, result.complete) == (step.scope, step.complete)
        assert (counts.created, counts.updated, counts.unchanged) == (
            len(expected.creates),
            len(expected.updates),
            expected.unchanged,
        )
        assert (counts.deleted, counts.deletes_held) == (
            0 if expected.held else len(expected.deletes),
            expected.held,
        )
        assert (result.status == "held") == bool(expected.held or expected.whole_run_held)

    def approve(self) -> None:
        with Workspace(Storage(home=self.folder)) as workspace:
            waiting = bool(self.model.held) or self.model.held_run is not None
            if not waiting:
                if workspace.syncs():
                    with pytest.raises(StateChanged):
                        workspace.approve("s")
                return
            gone = self.model.approve()
            assert workspace.approve("s").counts.deleted == len(gone)

    def check(self) -> None:
        """The table is what the model holds, and the pending keys and held ones are the model's."""
        found = []
        if self.path.exists():
            with sqlite3.connect(self.path) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchone():
                    cursor = connection.execute("SELECT * FROM t")
                    names = [column[0] for column in cursor.description]
                    found = [dict(zip(names, row, strict=True)) for row in cursor]
        wanted = {key: stored(row) for key, row in self.model.records.items()}
        assert {row["id"]: content(row) for row in found} == wanted
        with Workspace(Storage(home=self.folder)) as workspace:
            views = workspace.syncs()
            if not views:
                return
            held = views[0].held
            if self.model.held_run is not None:
                assert held is not None
                assert held.what == "run"
            else:
                assert (set() if held is None else {key["id"] for key in held.sample}) == {*self.model.held}


def stored(row: Any) -> Any:
    """SQLite has no truth values: they come back as numbers."""
    return content({name: int(v) if isinstance(v, bool) else v for name, v in row.items()})


@settings(max_examples=60, deadline=None)
@given(history=histories, delete_after=st.integers(1, 3), marks=st.booleans())
def test_histories_follow_the_model(history: list[Any], delete_after: int, marks: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checked = Checked(folder, ScopedModel(delete_after=delete_after, marks=marks))
        for step in history:
            if step == "approve":
                checked.approve()
            else:
                checked.run(step)
            checked.check()
