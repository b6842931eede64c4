"""Random histories of a source against the naive model: changes, SQLite and DuckDB."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rundiff
from rundiff.settings import Storage
from tests.property.model import Model, Outcome, content, plain
from tests.sqlitefiles import opened

NUMBERS = st.sampled_from([0, 1, 1.0, Decimal("1.00"), 2, 2.5, Decimal("2.5"), -0.0])
rows = st.fixed_dictionaries(
    {
        "id": st.one_of(st.integers(0, 6), st.sampled_from([None, 1.0, Decimal("2.00")])),
        "v": st.one_of(st.none(), NUMBERS, st.sampled_from(["a", "b", ""])),
        "rank": st.one_of(st.none(), st.integers(0, 3)),
        "updated_at": st.integers(0, 3),
    },
    optional={"extra": st.none()},
)
extracts = st.lists(st.lists(rows, max_size=10), min_size=1, max_size=5)
strategies = st.sampled_from(["last", "first", "max:rank", "min:rank", "max:updated_at"])


def compared(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "updated_at"}


class ComparedModel(Model):
    """The model with `updated_at` left out of the comparison, as it is by default."""

    def run(self, rows: Sequence[Mapping[str, Any]], strategy: str = "last") -> Outcome:
        tagged = [_Row(row) for row in rows]
        return super().run(tagged, strategy)


class _Row(dict[str, Any]):
    """A row whose content leaves `updated_at` out but whose rank may be taken by it."""

    def items(self) -> Any:
        return compared(dict(self)).items()


def keys_of(model: Model, records: Sequence[rundiff.SyncWriteRecord], action: str) -> set[Any]:
    return {model.key_of(r.primary_key) for r in records if r.destination_action == action}


@given(history=extracts, strategy=strategies)
def test_changes_follow_the_model(history: list[list[dict[str, Any]]], strategy: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        follow_changes(Storage(home=home), "s", history, strategy)


def follow_changes(storage: Storage, name: str, history: list[list[dict[str, Any]]], strategy: str) -> None:
    """Make a run for each extract, and compare all of it with the model."""
    model = ComparedModel(["id"])
    for extract in history:
        before = dict(model.records)
        expected = model.run(extract, strategy)
        changes = rundiff.changes(
            extract,
            primary_key="id",
            name=name,
            home=storage.home,
            database=storage.database,
            signatures=storage.signatures,
            on_conflict=strategy,
            on_dropped_field="update",
        )
        records = list(changes)
        assert keys_of(model, records, "delete") == expected.deletes
        assert keys_of(model, records, "update") == expected.updates
        assert keys_of(model, records, "create") == expected.creates
        order = [(r.destination_action, r.primary_key_signature) for r in records]
        rank = {"delete": 0, "update": 1, "create": 2}
        assert order == sorted(order, key=lambda item: (rank[item[0]], item[1]))
        assert [r.sequence for r in records] == list(range(1, len(records) + 1))
        assert changes.result is not None
        counts = changes.result.counts
        assert (counts.unchanged, counts.duplicates, counts.conflicts, counts.invalid_keys) == (
            expected.unchanged,
            expected.duplicates,
            expected.conflicts,
            expected.invalid,
        )
        assert (counts.records_read, counts.deletes_held) == (len(extract), expected.held)
        for record in records:
            key = model.key_of(record.primary_key)
            wanted = before[key] if record.destination_action == "delete" else model.records[key]
            assert record.data is not None
            assert content(compared(record.data)) == content(compared(dict(wanted)))
            if record.destination_action == "update":
                old, new = compared(dict(before[key])), compared(dict(wanted))
                differing = {n for n in {*old, *new} if plain(old.get(n)) != plain(new.get(n)) and n != "id"}
                assert set(record.changed_fields or ()) == differing


typed_rows = st.fixed_dictionaries(
    {
        "id": st.integers(0, 8),
        "v": st.one_of(st.none(), st.sampled_from(["a", "b", ""])),
        "n": st.one_of(st.none(), st.integers(-2, 2)),
    }
)
typed_extracts = st.lists(st.lists(typed_rows, max_size=8), min_size=1, max_size=6)


def table(url: str, path: Path) -> set[tuple[Any, ...]]:
    query = "SELECT id, v, n FROM people"
    if url.startswith("sqlite"):
        with opened(path) as connection:
            return set(connection.execute(query).fetchall())
    with duckdb.connect(str(path)) as connection:
        return set(connection.execute(query).fetchall())


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
@settings(max_examples=25)
@given(history=typed_extracts)
def test_the_destination_equals_the_source_and_the_replayed_log(
    scheme: str, history: list[list[dict[str, Any]]]
) -> None:
    model = Model(["id"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.db"
        url = f"{scheme}:///{path}"
        for extract in history:
            expected = model.run(extract)
            result = rundiff.sync(
                extract,
                primary_key="id",
                name="s",
                destination=url,
                into="people",
                home=folder,
                on_dropped_field="update",
            )
            assert result.counts.deletes_held == expected.held
            if not model.records and not path.exists():
                continue
            wanted = {(r["id"], r.get("v"), r.get("n")) for r in model.records.values()}
            assert table(url, path) == wanted
        assert replayed(folder) == {(r["id"], r.get("v"), r.get("n")) for r in model.records.values()}


def replayed(home: str) -> set[tuple[Any, ...]]:
    """Apply the whole write log to nothing."""
    from rundiff.engine.workspace import Workspace

    with Workspace(Storage(home=home)) as workspace:
        records = workspace.sql(
            "SELECT destination_action AS action, primary_key->>'id' AS key, data->>'id' AS id, "
            "data->>'v' AS v, data->>'n' AS n, status FROM sync_write_records ORDER BY run_id, sequence"
        ).to_pylist()
    state: dict[str, tuple[Any, ...]] = {}
    for record in records:
        assert record["status"] == "written"
        if record["action"] == "delete":
            del state[record["key"]]
        else:
            assert (record["key"] in state) == (record["action"] == "update")
            n = record["n"]
            state[record["key"]] = (int(record["id"]), record["v"], None if n is None else int(n))
    return set(state.values())


COLLIDING = [("a-b", "c"), ("a", "b-c"), ("", "x"), ("x", ""), (1, 2), (2, 1), ("1", 2), (1, "2")]


def test_composite_keys_do_not_collide(tmp_path: Path) -> None:
    records = [{"a": a, "b": b, "v": 1} for a, b in COLLIDING]
    first = list(rundiff.changes(records, primary_key=["a", "b"], name="keys"))
    assert len({r.primary_key_signature for r in first}) == len(COLLIDING)
    for order in itertools.islice(itertools.permutations(records), 0, 5000, 997):
        assert list(rundiff.changes(list(order), primary_key=["a", "b"], name="keys")) == []
