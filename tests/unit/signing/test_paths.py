"""Paths into nested data: what is left out, what alone is taken, and what is normalised inside."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rundiff.signing import mixed
from rundiff.signing.paths import split_path
from rundiff.signing.reference import signature
from tests.unit.signing.normaliser_tools import preparation, prepared, told
from tests.unit.signing.signers import SIGNERS, signer_of

META = {"fetched_at": "now", "by": {"name": "Ada", "at": 1}, "n": 7}
ITEMS = [{"sku": 1, "seen": "a"}, None, {"sku": 2, "seen": "b"}]


def signed_alike(batch: pa.RecordBatch, wanted: list[dict[str, Any]], **given: Any) -> None:
    made = prepared(batch, **given)
    for name in SIGNERS:
        signatures = signer_of(name)(made, batch.schema.names).signatures.to_pylist()
        assert signatures == [signature(record) for record in wanted]


def test_points_and_brackets_part_a_path() -> None:
    assert split_path("a.b") == ("a", "b")
    assert split_path("items[].seen.at") == ("items", "[]", "seen", "at")
    assert split_path("rows[][].x") == ("rows", "[]", "[]", "x")
    assert split_path("a..b") == ("a", "", "b")


@pytest.mark.parametrize(
    ("exclude", "wanted"),
    [
        (("meta.fetched_at",), {"by": {"name": "Ada", "at": 1}, "n": 7}),
        (("META.Fetched_*",), {"by": {"name": "Ada", "at": 1}, "n": 7}),
        (("meta.by",), {"fetched_at": "now", "n": 7}),
        (("meta.by.at", "meta.n"), {"fetched_at": "now", "by": {"name": "Ada"}}),
        (("meta.*",), {}),
        (("meta.nothing", "other.n"), META),
        (("meta[].n",), META),
    ],
)
def test_members_are_left_out(exclude: tuple[str, ...], wanted: dict[str, Any]) -> None:
    batch = pa.RecordBatch.from_pylist([{"x": 1, "meta": META}, {"x": 2, "meta": None}])
    signed_alike(batch, [{"x": 1, "meta": wanted}, {"x": 2}], exclude=exclude)


def test_members_of_items_are_left_out() -> None:
    batch = pa.RecordBatch.from_pylist([{"items": ITEMS}, {"items": None}, {"items": []}])
    kept = [{"sku": 1}, None, {"sku": 2}]
    signed_alike(batch, [{"items": kept}, {}, {"items": []}], exclude=("items[].seen",))
    signed_alike(batch.slice(1), [{}, {"items": []}], exclude=("items[].seen",))


def test_entries_of_maps_are_left_out_by_their_keys() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    batch = pa.record_batch(
        {"tags": pa.array([[("a", 1), ("seen_at", 2)], None, [("seen_at", 3)], []], kind)}
    )
    signed_alike(batch, [{"tags": {"a": 1}}, {}, {"tags": {}}, {"tags": {}}], exclude=("tags.seen_*",))
    signed_alike(batch.slice(2), [{"tags": {}}, {"tags": {}}], exclude=("tags.seen_*",))


@pytest.mark.parametrize(
    ("include", "wanted"),
    [
        (("meta.n",), {"n": 7}),
        (("meta.by.name", "meta.n"), {"by": {"name": "Ada"}, "n": 7}),
        (("meta.by", "meta.by.name"), {"by": {"name": "Ada", "at": 1}}),
        (("meta", "meta.n"), META),
        (("m*",), META),
        (("meta.nothing",), {}),
    ],
)
def test_only_what_is_included_is_taken(include: tuple[str, ...], wanted: dict[str, Any]) -> None:
    signed_alike(pa.RecordBatch.from_pylist([{"meta": META}]), [{"meta": wanted}], include=include)


def test_included_members_of_items() -> None:
    batch = pa.RecordBatch.from_pylist([{"items": ITEMS}])
    signed_alike(batch, [{"items": [{"sku": 1}, None, {"sku": 2}]}], include=("items[].sku",))
    signed_alike(batch, [{"items": ITEMS}], include=("items[]",))


def test_what_is_excluded_of_what_is_included() -> None:
    batch = pa.RecordBatch.from_pylist([{"meta": META}])
    signed_alike(batch, [{"meta": {"by": {"name": "Ada"}}}], include=("meta.by",), exclude=("meta.by.at",))


def test_the_exact_name_of_a_field_wins() -> None:
    batch = pa.RecordBatch.from_pylist([{"a.b": " x ", "a": {"b": " y ", "c": " z "}}])
    # Fields of their own names are left out by the choice of fields, not here.
    signed_alike(batch, batch.to_pylist(), exclude=("a.b",))
    made = prepared(batch, {"a.b": "trim"})
    assert made.to_pylist() == [{"a.b": "x", "a": {"b": " y ", "c": " z "}}]


def test_names_with_points_inside_of_paths() -> None:
    batch = pa.RecordBatch.from_pylist([{"a.b": {"c.d": 1.26, "e": 2}}])
    signed_alike(batch, [{"a.b": {"e": 2}}], exclude=("a.b.c.d",))
    signed_alike(batch, [{"a.b": {"c.d": 1.3, "e": 2}}], normalize={"a.b.c.d": "round(1)"})


def test_normalisers_inside() -> None:
    batch = pa.RecordBatch.from_pylist(
        [
            {"items": [{"name": " A ", "note": " B "}, None]},
            {"items": None},
            {"items": [{"name": None, "note": "c"}]},
        ]
    )
    wanted = [{"items": [{"name": "a", "note": " B "}, None]}, {}, {"items": [{"note": "c"}]}]
    signed_alike(batch, wanted, normalize={"items[].name": "trim|casefold"})


def test_the_field_comes_before_what_is_inside() -> None:
    batch = pa.RecordBatch.from_pylist([{"meta": {"a": 1.26, "b": 1.26}}])
    wanted = [{"meta": {"a": 1.0, "b": 1.3}}]
    signed_alike(batch, wanted, normalize={"meta.a": "round(0)", "meta": "round(1)"})


def test_paths_into_json_text() -> None:
    texts = ['{"id": 1, "at": "x", "tags": ["b", "a"], "items": [{"q": 1.26, "seen": 1}]}', "no json", None]
    batch = pa.record_batch({"doc": texts})
    made = prepared(
        batch,
        {"doc": "json", "doc.tags": "unordered", "doc.items[].q": "round(1)"},
        exclude=("doc.at", "doc.items[].seen"),
    )
    [value, other, none] = told(made.column(0))
    assert str(value) == "{'id': 1, 'tags': ['a', 'b'], 'items': [{'q': Decimal('1.3')}]}"
    assert (other, none) == (b"no json", None)
    made = prepared(batch, {"doc": "json"}, include=("doc.id", "doc.items[].q"))
    assert str(told(made.column(0))[0]) == "{'id': 1, 'items': [{'q': Decimal('1.26')}]}"


def test_json_inside_of_a_struct() -> None:
    batch = pa.RecordBatch.from_pylist([{"event": {"body": '{"a": 1, "at": 2}', "n": 1}}])
    signed_alike(
        batch,
        [{"event": {"body": {"a": 1}, "n": 1}}],
        normalize={"event.body": "json"},
        exclude=("event.body.at",),
    )


def test_fields_of_the_key_are_taken_as_they_are() -> None:
    batch = pa.RecordBatch.from_pylist([{"id": {"a": 1, "b": 2}}])
    assert preparation(exclude=("id.b",)).applied(batch, ["id"]).equals(batch)


def test_what_leads_nowhere_is_told() -> None:
    types = {
        "id": pa.int64(),
        "meta": pa.struct([("n", pa.int64()), ("list", pa.list_(pa.struct([("x", pa.int64())])))]),
        "mixed": mixed.MixedType(),
        "none": pa.null(),
        "doc": pa.string(),
        "document": pa.string(),
    }
    made = preparation(
        {
            "mete": "trim",
            "meta.n": "round(1)",
            "meta.list[].y": "trim",
            "none": "trim",
            "doc": "json",
            "doc.a[]": "trim",
        },
        exclude=(
            "meta.list[].x",
            "meta.list.x",
            "id.x",
            "mixed.x",
            "none.x",
            "loaded_at",
            "doc.b",
            "document.b",
        ),
    )
    assert made.astray(types) == ["mete", "meta.list[].y", "meta.list.x", "id.x", "document.b"]


def test_a_field_of_the_key_may_be_included_by_its_name() -> None:
    types = {"id": pa.int64(), "meta": pa.struct([("n", pa.int64())])}
    assert preparation(include=("id", "meta.n", "nothing")).astray(types) == ["nothing"]
