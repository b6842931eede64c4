"""What is offered when a baseline is lost follows from what was lost and where it went, not from the reason's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination
from rundiff.engine.lost import Lost, refusal
from rundiff.errors import BaselineLost
from rundiff.settings import DestinationOptions


def table(folder: Path, mode: str = "mirror") -> Destination:
    return open_destination(DestinationOptions(url=f"sqlite:///{folder}/crm.db", into="people", mode=mode))


def stream(folder: Path) -> Destination:
    return open_destination(DestinationOptions(url=f"{folder}/changes.jsonl"))


@pytest.mark.parametrize(
    "reason", ["segment base-1 is missing: expired", "the database of the store was emptied"]
)
def test_a_rebuild_is_offered_where_the_write_log_is(tmp_path: Path, reason: str) -> None:
    lost = Lost.told_by(BaselineLost(reason))
    error = refusal("people", lost, table(tmp_path))
    assert f"lost: {reason}. Nothing was written. Use `rundiff rebuild people`" in str(error)
    assert "--on-lost-baseline rebaseline" in str(error)
    assert error.rebuildable


def test_none_is_offered_where_it_is_not(tmp_path: Path) -> None:
    lost = Lost.told_by(BaselineLost("the store is ahead", rebuildable=False))
    error = refusal("people", lost, stream(tmp_path))
    assert "rebuild" not in str(error).replace("rebaseline", "")
    assert ". Nothing was written. Run with --on-lost-baseline rebaseline" in str(error)
    assert not error.rebuildable


def test_a_destination_that_can_be_read_back_can_be_started_from(tmp_path: Path) -> None:
    lost = Lost(reason="it is gone")
    known = str(refusal("people", lost, table(tmp_path)))
    assert "start from what the destination holds: `rundiff reset people`, then `rundiff adopt" in known
    assert "holds: `rundiff adopt" in str(refusal("people", lost, table(tmp_path), known=False))
    assert "adopt" not in str(refusal("people", lost, stream(tmp_path)))


def test_no_resend_is_offered_where_it_would_double_rows(tmp_path: Path) -> None:
    lost = Lost(reason="it is gone")
    assert "or resend" in str(refusal("people", lost, table(tmp_path)))
    assert "resend" not in str(refusal("people", lost, table(tmp_path, "append")))
