"""Random histories in which fields get other names and types: only what changed otherwise is written."""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage
from tests.property.test_machines import EFFORT

KEYS = [None, "the first of two signing keys", "the second of two signing keys"]
EVERY = {0: ("a", 0), 1: ("a", 0), 2: ("a", 0), 3: ("a", 0)}

steps = st.one_of(
    st.tuples(
        st.just("run"),
        st.dictionaries(st.integers(0, 3), st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2))),
    ),
    st.tuples(st.just("run"), st.just({})),
    st.tuples(st.sampled_from(["rename", "retype", "rebuild", "rotate", "fold"]), st.just({})),
)


class History:
    """One sync, what its destination holds, and how its source spells that."""

    def __init__(self, home: str, *, singly: bool) -> None:
        self.home = home
        self.singly = singly
        self.name = "t0"
        self.texts = False
        self.fold = False
        self.key: str | None = None
        self.former: str | None = None
        self.held = dict(EVERY)
        assert len(self.run(EVERY)) == 4

    def run(self, records: dict[int, tuple[str, int]]) -> dict[int, tuple[str, ...] | None]:
        rows: list[dict[str, Any]] = [
            {"id": key, self.name: t, "n": str(n) if self.texts else n} for key, (t, n) in records.items()
        ]
        environ = {} if self.key is None else {"RUNDIFF_SIGNING_KEY": self.key}
        if self.former != self.key:
            environ["RUNDIFF_SIGNING_KEY_FORMER"] = self.former or ""
        with (
            patch.dict(os.environ, environ),
            rundiff.changes(
                rows,
                primary_key="id",
                name="s",
                home=self.home,
                delete_after_misses=200,
                normalize={self.name: "casefold"} if self.fold else {},
                field_signatures=self.singly,
            ) as changes,
        ):
            written = {change.primary_key["id"]: change.changed_fields for change in changes}
        self.former = self.key
        return written

    def step(self, what: str, records: dict[int, tuple[str, int]]) -> None:
        # The caller delivers, so a workspace needs no destination.
        keys = [None if key is None else key.encode() for key in (self.key, self.former)]
        with Workspace(
            Storage(home=self.home, signing_key=keys[0], former_signing_key=keys[1] or b"")
        ) as workspace:
            if what == "rename":
                old, self.name = self.name, f"t{int(self.name[1:]) + 1}"
                workspace.accept_schema("s", renamed={old: self.name})
            elif what == "retype" and not self.texts:
                self.texts = True
                workspace.accept_schema("s", ["n"])
            elif what == "rebuild":
                workspace.rebuild("s")
        if what == "rotate":
            self.key = KEYS[(KEYS.index(self.key) + 1) % len(KEYS)]
        elif what == "fold":
            self.fold = not self.fold
        wanted = {}
        for key, record in records.items():
            names = [(self.name, 0), ("n", 1)]
            if different := tuple(name for name, at in names if record[at] != self.held[key][at]):
                wanted[key] = set(different)
        # Records that the source lacks are in grace: their entries are signed by the log where the rule changes.
        found = self.run(records or self.held)
        assert {key: None if fields is None else set(fields) for key, fields in found.items()} == wanted
        self.held.update(records)


@settings(max_examples=max(1, 20 * EFFORT // 60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(steps, min_size=2, max_size=7), singly=st.booleans(), part=st.booleans())
def test_other_names_and_types_send_nothing(
    history: list[tuple[str, dict[int, tuple[str, int]]]], singly: bool, part: bool
) -> None:
    with tempfile.TemporaryDirectory() as home:
        sync = History(home, singly=singly)
        for what, records in history:
            if part and what != "run":
                # The run that goes over reads one record alone.
                sync.step(what, {1: sync.held[1]} if what != "rebuild" else {})
            else:
                sync.step(what, records)
