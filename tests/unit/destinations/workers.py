"""What tests run in processes of their own; imports little, so that these start fast."""

from __future__ import annotations

import sys

import pyarrow as pa
from msgspec.structs import replace

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Position, Target
from rundiff.errors import DestinationError
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch

TARGET = Target(sync_id="s", sync="people", primary_key=("id",), token=1)
START = Position(run=1, sequence=0)
BATCH = 200


def deliver_for_ever(url: str, token: int) -> None:
    """Insert the ids 1, 2, 3 and so on, from where the watermark stands."""
    target = replace(TARGET, token=token)
    destination = open_destination(DestinationOptions(url=url, into="people"))
    at = destination.position(target) or START
    destination.prepare(target, pa.schema([("id", pa.int64()), ("v", pa.int64())]))
    destination.claim(target, at)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        first = at.sequence + 1
        rows = pa.table({"id": range(first, first + BATCH), "v": [1] * BATCH})
        at = destination.deliver(target, change_batch(rows, "insert", first=first), at)


def overfill(path: str) -> None:
    """Append more than the process may write."""
    stream = open_destination(DestinationOptions(url=path))
    try:
        stream.deliver(TARGET, change_batch([{"id": n} for n in range(1_000)], "create"), START)
    except DestinationError as error:
        sys.stdout.write(f"{type(error).__name__} {error}")


def deliver_to_standard_output(rows: int) -> None:
    """Write 50 runs, or exit with 7 when that fails."""
    stream = open_destination(DestinationOptions(url="-"))
    stream.check(TARGET, {"id": pa.int64()})
    stream.claim(TARGET, START)
    at = START
    try:
        for run in range(1, 51):
            at = stream.deliver(TARGET, change_batch(pa.table({"id": range(rows)}), "create", run=run), at)
    except DestinationError as error:
        sys.stderr.write(f"{type(error).__name__} {error}\n")
        sys.exit(7)
    stream.close()
