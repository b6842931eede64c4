"""A state machine of runs, approvals and discards against the naive model, on each kind of state.

`test_scopes` goes through many histories on the embedded default; here a few go through the stores of
several machines, with approvals that name a digest from any time before.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage
from tests.property.checked import Checked, steps
from tests.property.model import ScopedModel, Step, content
from tests.property.test_histories import extracts, follow_changes, strategies
from tests.property.walks import walk

numbers = itertools.count()
EFFORT = int(os.environ.get("RUNDIFF_EXAMPLES", "60"))
"""As in the profile of the suite."""


class Machine(RuleBasedStateMachine):
    """One sync; what a person may do between its runs."""

    digests = Bundle("digests")
    """Of what was held at some time, with what it meant."""

    def __init__(self, storage: Callable[[str], Storage]) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.storage = storage(self.folder.name)

    @initialize(delete_after=st.integers(1, 3), marks=st.booleans())
    def begin(self, delete_after: int, marks: bool) -> None:
        model = ScopedModel(delete_after=delete_after, marks=marks)
        # The stores outlive an example: each has a sync of its own.
        self.checked = Checked(self.folder.name, model, self.storage, f"s{next(numbers)}")

    @rule(target=digests, step=steps)
    def run(self, step: Step) -> Any:
        self.checked.run(step)
        return self._held()

    @rule()
    def approve(self) -> None:
        self.checked.approve()

    @rule(digest=digests)
    def approve_what_was_shown(self, digest: tuple[str, Any]) -> None:
        held, meaning = digest
        if self.checked.model.held and meaning is not None:
            # The same deletions have the same digest, and others another.
            with Workspace(self.storage) as workspace:
                now = self.checked.shown(workspace)
            assert now is not None
            assert (now.digest == held) == (self._meaning() == meaning)
        self.checked.approve(held)

    @precondition(lambda self: self.checked.waiting)
    @rule()
    def discard(self) -> None:
        self.checked.discard()

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "checked"):
            self.checked.check()

    def teardown(self) -> None:
        self.folder.cleanup()

    def _meaning(self) -> Any:
        model = self.checked.model
        return {key: content(model.records[key]) for key in model.held}

    def _held(self) -> Any:
        if not self.checked.waiting:
            return multiple()
        with Workspace(self.storage) as workspace:
            held = self.checked.shown(workspace)
        assert held is not None
        return held.digest, self._meaning() if self.checked.model.held_run is None else None


def embedded(_: pytest.FixtureRequest) -> Callable[[str], Storage]:
    return lambda folder: Storage(home=folder)


def postgresql_with_redis(request: pytest.FixtureRequest) -> Callable[[str], Storage]:
    database, signatures = request.getfixturevalue("postgresql_url"), request.getfixturevalue("valkey_url")
    return lambda folder: Storage(home=folder, database=database, signatures=signatures)


def postgresql_alone(request: pytest.FixtureRequest) -> Callable[[str], Storage]:
    url = request.getfixturevalue("postgresql_url")
    return lambda folder: Storage(home=folder, database=url, signatures=url)


@pytest.mark.parametrize(
    ("stores", "examples"), [(embedded, 12), (postgresql_with_redis, 5), (postgresql_alone, 5)]
)
def test_runs_approvals_and_discards_follow_the_model(
    request: pytest.FixtureRequest, stores: Callable[[pytest.FixtureRequest], Any], examples: int
) -> None:
    storage = stores(request)
    examples = examples * EFFORT // 60
    run_state_machine_as_test(
        lambda: Machine(storage),
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("stores", [postgresql_with_redis, postgresql_alone])
def test_changes_follow_the_model_on_shared_stores(
    request: pytest.FixtureRequest, tmp_path: Path, stores: Callable[[pytest.FixtureRequest], Any]
) -> None:
    storage = stores(request)(str(tmp_path / "machine"))

    @settings(max_examples=5 * EFFORT // 60)
    @given(history=extracts, strategy=strategies)
    def follow(history: list[list[dict[str, Any]]], strategy: str) -> None:
        follow_changes(storage, f"s{next(numbers)}", history, strategy)

    follow()


def test_a_long_walk_follows_the_model_on_shared_stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model, storage = ScopedModel(delete_after=2, marks=True), postgresql_with_redis(request)
    Checked(str(tmp_path), model, storage(str(tmp_path)), f"w{next(numbers)}").follow(walk(3, 12))
