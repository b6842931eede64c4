"""Random histories of scopes, grace, marks, guards and approvals against the naive model."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.checked import Checked, steps
from tests.property.model import ScopedModel

histories = st.lists(st.one_of(steps, steps, steps, st.just("approve")), min_size=2, max_size=8)


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
