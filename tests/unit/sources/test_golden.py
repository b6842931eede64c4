"""Ugly files, each beside the records that it holds: `tests/golden/sources`."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sources.reads import read_all

GOLDEN = Path(__file__).parents[2] / "golden" / "sources"
CASES = sorted(path.name.removesuffix(".expected.json") for path in GOLDEN.glob("*.expected.json"))


def as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return value


@pytest.mark.parametrize("name", CASES)
def test_file_holds_its_records(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    outcome = read_all(GOLDEN / name, **expected.pop("options", {}))
    found = {
        "pins": dict(outcome.pins),
        "records": as_json(outcome.records),
        "unreadable": [
            [location, field, reason]
            for (location, field), reason in zip(outcome.unreadable, outcome.reasons, strict=True)
        ],
        "incomplete": list(outcome.incomplete),
        "ends_with_newline": outcome.ends_with_newline,
    }
    assert found == expected
    # Types tell apart what compares equal in Python: 1, 1.0 and True.
    assert json.dumps(found["records"]) == json.dumps(expected["records"])
