"""Random histories in which the comparison and the signing key change, against the model with rules."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundiff.settings import Storage
from tests.property.checked import Checked, steps
from tests.property.model import Step
from tests.property.rules import AskedRule, RuledModel
from tests.property.test_machines import EFFORT, embedded, postgresql_alone, postgresql_with_redis

numbers = itertools.count()
KEYS = [None, None, "the first of two signing keys", "the second of two signing keys"]
BEGIN = Step(rows=[{"id": 9, "part": "A", "v": 0, "gone": False, "note": "x", "t": "A"}])
asked_rules = st.builds(
    AskedRule,
    exclude=st.sampled_from([frozenset(), frozenset({"v"}), frozenset({"v", "note"})]),
    fold=st.booleans(),
    key=st.sampled_from(KEYS),
)


@st.composite
def ruled_steps(draw: st.DrawFn) -> tuple[Step, AskedRule | None]:
    step = draw(steps)
    rows = [{**row, "t": draw(st.sampled_from(["A", "a"]))} for row in step.rows]
    asked = draw(st.one_of(st.none(), asked_rules))
    return Step(**{**vars(step), "rows": rows}), asked


class Ruled(Checked):
    """A sync whose options and environment change."""

    model: RuledModel

    def run_under(self, step: Step, asked: AskedRule | None) -> None:
        """Run as asked; None: as before."""
        self.model.asked = asked = asked or self.model.asked
        options = dict(self.options)
        self.options["exclude"] = sorted(asked.exclude)
        self.options["normalize"] = {"t": "casefold"} if asked.fold else {}
        # On and off by chance: entries gain and lose them in every kind of run.
        self.options["field_signatures"] = len(step.rows) % 3 > 0
        environ = {} if asked.key is None else {"RUNDIFF_SIGNING_KEY": asked.key}
        if asked.key != self.model.rule.key:
            environ["RUNDIFF_SIGNING_KEY_FORMER"] = self.model.rule.key or ""
        with patch.dict(os.environ, environ):
            self.run(step)
        self.options = options
        key, former = ((name or "").encode() for name in (asked.key, self.model.rule.key))
        self.storage = msgspec.structs.replace(
            self.storage, signing_key=key or None, former_signing_key=former
        )


@pytest.mark.parametrize(
    ("stores", "examples"), [(embedded, 25), (postgresql_with_redis, 3), (postgresql_alone, 3)]
)
def test_histories_with_changing_rules_follow_the_model(
    stores: Callable[[pytest.FixtureRequest], Callable[[str], Storage]],
    examples: int,
    request: pytest.FixtureRequest,
) -> None:
    storage = stores(request)

    @settings(
        max_examples=max(1, examples * EFFORT // 60),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        history=st.lists(
            st.one_of(ruled_steps(), ruled_steps(), ruled_steps(), st.just("approve")), min_size=2, max_size=8
        ),
        delete_after=st.integers(1, 3),
        marks=st.booleans(),
    )
    def follow(history: list[Any], delete_after: int, marks: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = RuledModel(delete_after=delete_after, marks=marks)
            ruled = Ruled(folder, model, storage(folder), f"r{next(numbers)}")
            ruled.run_under(BEGIN, None)
            for step in history:
                if step == "approve":
                    ruled.approve()
                else:
                    ruled.run_under(*step)
                ruled.check()

    follow()
