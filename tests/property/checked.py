"""One sync beside the naive model of it: what every step of a history must come to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

import rundiff
from rundiff.engine.views import HeldSet
from rundiff.engine.workspace import Workspace
from rundiff.errors import PolicyViolation, StateChanged
from rundiff.settings import Storage
from tests.property.model import Judged, ScopedModel, Step, content
from tests.sqlitefiles import opened

__all__ = ["Checked", "steps"]

rows = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5),
        "part": st.sampled_from([None, "A", "B", "C"]),
        "v": st.integers(0, 1),
        "gone": st.sampled_from([None, False, True]),
    },
    # A field that comes and goes, in some records or in all of a run.
    optional={"note": st.sampled_from([None, "x", "y"])},
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
    max_updates_percent=st.sampled_from([None, None, None, 30.0]),
    max_creates_percent=st.sampled_from([None, None, None, 50.0]),
    partition_guards=st.one_of(
        st.just({}),
        st.just({}),
        st.sampled_from(
            [
                {"allow_empty": False},
                {"max_deletes": 0},
                {"min_records": 2},
                {"max_delete_percent": 60},
                {"max_updates_percent": 30.0},
                {"max_creates_percent": 50.0},
                {"min_records": 1, "max_deletes": 1},
            ]
        ),
    ),
    on_guard=st.sampled_from(["hold_deletes", "hold_deletes", "hold_run", "fail"]),
)


class Checked:
    """One sync into SQLite, and the model of it."""

    def __init__(
        self, folder: str, model: ScopedModel, storage: Storage | None = None, name: str = "s"
    ) -> None:
        self.folder = folder
        self.storage = storage or Storage(home=folder)
        self.name = name
        self.model = model
        self.path = Path(folder) / "d.db"
        self.options: dict[str, Any] = {"delete_after_misses": model.delete_after, "max_delete_percent": 100}
        if model.marks:
            self.options["deleted_when"] = "gone"

    def run(self, step: Step) -> None:
        options = {**self.options, "on_guard": step.on_guard, "scope": step.scope}
        for limit in ("max_deletes", "max_updates_percent", "max_creates_percent"):
            if getattr(step, limit) is not None:
                options[limit] = getattr(step, limit)
        if step.partition_guards:
            # Each partition is judged in full runs, too, once the fields are named.
            options |= {"partition_guards": step.partition_guards, "partition_by": ["part"]}
        if not step.complete:
            options["expected_rows"] = len(step.rows) + 1
        if step.scope == "partition" and step.named is not None:
            options.pop("partition_by", None)
            options["partition"] = {"part": sorted(step.named)}
        elif step.scope == "partition":
            options["partition_by"] = ["part"]
        expected = self.model.run(step)
        try:
            result = rundiff.sync(
                list(step.rows),
                primary_key="id",
                name=self.name,
                destination=f"sqlite:///{self.path}",
                into="t",
                home=self.storage.home,
                database=self.storage.database,
                signatures=self.storage.signatures,
                on_dropped_field="update",
                **options,
            )
        except PolicyViolation:
            assert expected.refused
            return
        self.compare(result, expected, step)

    def follow(self, walk: Iterable[Step | str]) -> None:
        """Take runs, and between them the words `approve` and `discard`."""
        for step in walk:
            if isinstance(step, Step):
                self.run(step)
            elif step == "approve":
                self.approve()
            else:
                self.discard()
            self.check()

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

    @property
    def waiting(self) -> bool:
        """Whether a guard holds something."""
        return bool(self.model.held) or self.model.held_run is not None

    def shown(self, workspace: Workspace) -> HeldSet | None:
        """What is held, as a person sees it."""
        held = [view.held for view in workspace.syncs() if view.name == self.name]
        return held[0] if held else None

    def known(self, workspace: Workspace) -> bool:
        """Whether there was a run yet."""
        return any(view.name == self.name for view in workspace.syncs())

    def approve(self, digest: str | None = None) -> None:
        """Approve what is held; with a digest, only what it names."""
        with Workspace(self.storage) as workspace:
            if not self.known(workspace):
                return
            held = self.shown(workspace)
            named = held is not None and (digest is None or held.digest == digest)
            if not self.waiting or not named:
                with pytest.raises(StateChanged):
                    workspace.approve(self.name, digest)
                return
            gone = self.model.approve()
            assert workspace.approve(self.name, digest).counts.deleted == len(gone)

    def discard(self) -> None:
        """Drop what is held."""
        with Workspace(self.storage) as workspace:
            if not self.waiting:
                if self.known(workspace):
                    with pytest.raises(StateChanged):
                        workspace.discard(self.name)
                return
            count = len(self.model.held)
            dropped = workspace.discard(self.name)
            assert dropped.what == "run" or dropped.count == count
            self.model.discard()

    def check(self) -> None:
        """The table is what the model holds, and the pending keys and held ones are the model's."""
        found = []
        if self.path.exists():
            with opened(self.path) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchone():
                    cursor = connection.execute("SELECT * FROM t")
                    names = [column[0] for column in cursor.description]
                    found = [dict(zip(names, row, strict=True)) for row in cursor]
        wanted = {key: stored(row) for key, row in self.model.records.items()}
        assert {row["id"]: content(row) for row in found} == wanted
        with Workspace(self.storage) as workspace:
            if not self.known(workspace):
                return
            held = self.shown(workspace)
            if self.model.held_run is not None:
                assert held is not None
                assert held.what == "run"
            else:
                # Only the first few are shown.
                assert (0 if held is None else held.count) == len(self.model.held)
                assert {key["id"] for key in (() if held is None else held.sample)} <= self.model.held


def stored(row: Any) -> Any:
    """SQLite has no truth values: they come back as numbers."""
    return content({name: int(v) if isinstance(v, bool) else v for name, v in row.items()})
