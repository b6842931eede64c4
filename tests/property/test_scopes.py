"""Random histories of scopes, grace, marks, guards and approvals against the naive model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.checked import Checked, steps
from tests.property.model import ScopedModel
from tests.property.walks import walk

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


@pytest.mark.parametrize(("seed", "delete_after", "marks"), [(1, 1, False), (2, 1, True), (12, 1, False)])
def test_long_walks_follow_the_model(tmp_path: Path, seed: int, delete_after: int, marks: bool) -> None:
    checked = Checked(str(tmp_path), ScopedModel(delete_after=delete_after, marks=marks))
    checked.follow(walk(seed, 40))
