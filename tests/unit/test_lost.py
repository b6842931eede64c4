"""What is offered when a baseline is lost follows from what was lost, and not from the words of the reason."""

from __future__ import annotations

import pytest

from rundiff.engine.lost import Lost, refusal
from rundiff.errors import BaselineLost


@pytest.mark.parametrize(
    "reason", ["segment base-1 is missing: expired", "the database of the store was emptied"]
)
def test_a_rebuild_is_offered_where_the_write_log_is(reason: str) -> None:
    lost = Lost.told_by(BaselineLost(reason))
    error = refusal("people", lost)
    assert f"lost: {reason}. Nothing was written. Use `rundiff rebuild people`" in str(error)
    assert "--on-lost-baseline rebaseline" in str(error)
    assert error.rebuildable


def test_none_is_offered_where_it_is_not() -> None:
    lost = Lost.told_by(BaselineLost("the store is ahead", rebuildable=False))
    error = refusal("people", lost)
    assert "rebuild" not in str(error).replace("rebaseline", "")
    assert ". Nothing was written. Run with --on-lost-baseline rebaseline" in str(error)
    assert not error.rebuildable
