"""What the CSV destination writes, the CSV source reads back: null, empty text, quotes, every type of text."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Position, Target
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch
from rundiff.testing.nasty import NASTY
from tests.unit.sources.reads import read_all

TARGET = Target(sync_id="one", sync="=people", primary_key=("id",), token=1)
START = Position(run=1, sequence=0)

texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FIELDS: dict[str, tuple[str, pa.DataType, st.SearchStrategy[Any]]] = {
    "text": ("text", pa.string(), texts),
    'a "b", c': ("text", pa.string(), texts),
    "whole": ("integer", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "large": ("unsigned", pa.uint64(), st.integers(0, 2**64 - 1)),
    "float": ("double", pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "money": (
        "decimal(20,2)",
        pa.decimal128(20, 2),
        st.integers(-(10**20) + 1, 10**20 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    ),
    "yes": ("boolean", pa.bool_(), st.booleans()),
    "day": ("date", pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "at": ("timestamp", pa.timestamp("us"), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))),  # noqa: DTZ001
    "zoned": (
        "timestamp with time zone",
        pa.timestamp("us", "UTC"),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
    "time": ("time", pa.time64("us"), st.times(time(0), time(23, 59, 59, 999_999))),
}


@given(
    rows=st.lists(
        st.fixed_dictionaries({name: st.none() | values for name, (_, _, values) in FIELDS.items()}),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(rows: list[dict[str, Any]]) -> None:
    schema = pa.schema([("id", pa.int64()), *((name, kind) for name, (_, kind, _) in FIELDS.items())])
    sent = [{"id": number, **row} for number, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        destination = open_destination(DestinationOptions(url=f"{folder}/changes.csv"))
        destination.prepare(TARGET, schema)
        destination.claim(TARGET, START)
        batch = change_batch(pa.Table.from_pylist(sent, schema=schema), "create")
        destination.finish(TARGET, destination.deliver(TARGET, batch, START))
        [path] = Path(folder, "changes.csv").iterdir()
        pins = {"id": "integer", **{name: pin for name, (pin, _, _) in FIELDS.items()}}
        read = read_all(str(path), types=pins)
    assert not read.unreadable
    found = [{name: record[name] for name in pins} for record in read.records]
    assert found == sent
