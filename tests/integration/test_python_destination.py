"""Functions and objects of Python as destinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.api import Sync
from rundiff.model import SyncWriteRecord

Row = dict[str, Any]


def people(count: int) -> list[Row]:
    return [{"id": i, "v": f"v{i}"} for i in range(count)]


class Store:
    """Takes changes, and refuses or fails as it is told."""

    def __init__(self) -> None:
        self.rows: dict[int, Any] = {}
        self.calls: list[list[SyncWriteRecord]] = []
        self.refuses: set[int] = set()
        self.raises: set[int] = set()
        self.error: Exception = ValueError("no room for it")
        self.closed = 0

    def write(self, records: list[SyncWriteRecord]) -> list[tuple[SyncWriteRecord, str]]:
        self.calls.append(records)
        if any(record.primary_key["id"] in self.raises for record in records):
            raise self.error
        refused = []
        for record in records:
            if record.primary_key["id"] in self.refuses:
                refused.append((record, "not wanted"))
            elif record.destination_action == "delete":
                del self.rows[record.primary_key["id"]]
            else:
                assert record.data is not None
                self.rows[record.primary_key["id"]] = record.data["v"]
        return refused

    def close(self) -> None:
        self.closed += 1


def to(destination: Any, rows: Any, home: Path, **options: Any) -> Sync:
    return Sync(rows, "id", name="s", destination=destination, home=home, **options)


def test_a_function_is_given_each_change(home: Path) -> None:
    taken: list[SyncWriteRecord] = []

    def keep(records: list[SyncWriteRecord]) -> None:
        taken.extend(records)

    result = rundiff.sync(people(3), primary_key="id", name="s", destination=keep, home=home)
    assert result.counts.written == 3
    rundiff.sync(
        [{"id": 1, "v": "x"}, *people(3)[2:]], primary_key="id", name="s", destination=keep, home=home
    )
    assert [(r.run_id, str(r.destination_action), r.primary_key["id"]) for r in taken[3:]] == [
        (2, "delete", 0),
        (2, "update", 1),
    ]
    assert len({record.idempotency_key for record in taken}) == 5
    with pytest.raises(rundiff.SyncMismatch, match="delivers to python:"):
        rundiff.sync(people(3), primary_key="id", name="s", destination=Store(), home=home)


def test_an_object_refuses_records_by_name(home: Path) -> None:
    store = Store()
    store.refuses = {1}
    result = to(store, people(4), home).run()
    assert (result.counts.written, result.counts.failed, store.closed) == (3, 1, 1)
    store.refuses = set()
    assert to(store, people(4), home).retry().counts.created == 1
    assert store.rows == {row["id"]: row["v"] for row in people(4)}


def test_a_batch_that_raises_is_halved(home: Path) -> None:
    store = Store()
    store.raises = {77}
    result = to(store, people(1000), home).run()
    assert (result.counts.written, result.counts.failed) == (999, 1)
    assert len(store.calls) <= 21
    store.raises = set()
    assert to(store, people(1000), home).run().counts.created == 1


def test_an_error_of_rundiff_stops_the_run_and_the_next_goes_on(home: Path) -> None:
    store = Store()
    store.raises, store.error = {5}, rundiff.DestinationError("closed for today")
    with pytest.raises(rundiff.DestinationError, match="closed for today"):
        to(store, people(20), home, batch_size=2).run()
    before = len(store.rows)
    store.raises = set()
    to(store, people(20), home, batch_size=2).run()
    assert 0 < before < len(store.rows) == 20


@pytest.mark.parametrize("wrong", [7, Store, ["people.jsonl"]])
def test_what_takes_no_changes_is_refused(wrong: Any, home: Path) -> None:
    with pytest.raises(rundiff.ConfigurationError, match="takes a URL, a function"):
        to(wrong, people(1), home).run()


def test_a_wrong_answer_stops_the_run(home: Path) -> None:
    with pytest.raises(rundiff.ConfigurationError, match="must return None, or pairs"):
        to(lambda _: ["?"], people(1), home).run()


def test_an_approval_takes_what_is_stored_of_the_destination(home: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    to(url, people(5), home, into="people", max_deletes=1).run()
    assert to(url, people(2), home, into="people", max_deletes=1).run().counts.deletes_held == 3
    assert to(None, [], home).approve().counts.deleted == 3
    store = Store()
    Sync(people(5), "id", name="t", destination=store, home=home, max_deletes=1).run()
    Sync(people(2), "id", name="t", destination=store, home=home, max_deletes=1).run()
    assert Sync([], "id", name="t", destination=store, home=home).approve().counts.deleted == 3
    assert set(store.rows) == {0, 1}
