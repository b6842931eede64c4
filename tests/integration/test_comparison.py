"""Normalisers and paths from end to end: which records are updated, what is delivered, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import rundiff
from rundiff.cli import main
from rundiff.errors import ConfigurationError
from rundiff.model import RunResult


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def synced(rows: Any, **options: Any) -> RunResult:
    return rundiff.sync(rows, primary_key="id", name="places", destination="out.jsonl", **options)


def counts(result: RunResult) -> tuple[int, int, int]:
    return result.counts.created, result.counts.updated, result.counts.unchanged


def delivered() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


def place(number: int, **other: Any) -> dict[str, Any]:
    ring = [[number + 0.1234, 51.5], [number + 0.5, 51.75]]
    value = {
        "id": number,
        "name": f"Place {number}",
        "lat": number + 0.1234,
        "ring": ring,
        "tags": ["a", "b", "c"],
    }
    return {
        **value,
        "meta": {"fetched_at": "Monday", "owner": "Ann"},
        "doc": '{"a": 1.50, "b": [1, 2]}',
        **other,
    }


def test_a_precision_change_of_1e_5_in_every_coordinate() -> None:
    before = [place(number) for number in range(50)]
    after = [
        place(n, lat=n + 0.1234 + 1e-5, ring=[[n + 0.1234 - 1e-5, 51.50001], [n + 0.5 + 1e-5, 51.74999]])
        for n in range(50)
    ]
    rule = {"normalize": {"lat": "round(4)", "ring": "round(4)"}}
    assert counts(synced(before, **rule)) == (50, 0, 0)
    assert counts(synced(after, **rule)) == (0, 0, 50)
    # 111 metres are no change of precision.
    after[7]["lat"] += 0.001
    assert counts(synced(after, **rule)) == (0, 1, 49)
    [change] = [each for each in delivered() if each["action"] == "update"]
    assert change["changed_fields"] == ["lat"]
    # Delivered as the source has it.
    assert change["data"]["ring"] == after[7]["ring"]


def test_fewer_digits_in_every_coordinate() -> None:
    # As good as no two of these doubles lie in the middle of two five-digit numbers.
    digits = [(n * 0.6180339887498949) % 1 for n in range(1, 301)]
    before = [place(n, lat=10 + d, ring=[[d * 100, 50 - d]]) for n, d in enumerate(digits)]
    after = [
        place(n, lat=round(10 + d, 5), ring=[[round(d * 100, 5), round(50 - d, 5)]])
        for n, d in enumerate(digits)
    ]
    rule = {"normalize": {"lat": "round(5)", "ring": "round(5)"}}
    assert counts(synced(before, **rule)) == (300, 0, 0)
    assert counts(synced(after, **rule)) == (0, 0, 300)


def test_another_normaliser_sends_nothing() -> None:
    assert counts(synced([place(1), place(2)], normalize={"lat": "round(4)"})) == (2, 0, 0)
    other = {"normalize": {"lat": "round(2)", "name": "casefold"}, "exclude": ["meta.fetched_at"]}
    result = synced([place(1), place(2, name="Other")], **other)
    assert counts(result) == (0, 1, 1)
    assert "records were signed under both rules" in result.warnings[0]
    assert counts(synced([place(1, name="PLACE 1"), place(2, name="Other")], **other)) == (0, 0, 2)


def test_lists_in_another_order() -> None:
    assert counts(synced([place(1)], normalize={"tags": "unordered"})) == (1, 0, 0)
    assert counts(synced([place(1, tags=["c", "a", "b"])], normalize={"tags": "unordered"})) == (0, 0, 1)
    assert counts(synced([place(1, tags=["c", "a"])], normalize={"tags": "unordered"})) == (0, 1, 0)


def test_without_the_setting_each_is_an_update() -> None:
    assert counts(synced([place(1), place(2)])) == (2, 0, 0)
    assert counts(synced([place(1, lat=1.12341), place(2, tags=["c", "a", "b"])])) == (0, 2, 0)


def test_what_a_crawler_adds_to_nested_records() -> None:
    options = {"exclude": ["meta.fetched_at"], "normalize": {"doc": "json", "name": ["trim", "casefold"]}}
    assert counts(synced([place(1), place(2)], **options)) == (2, 0, 0)
    meta = {"fetched_at": "Tuesday", "owner": "Ann"}
    again = [
        place(1, meta=meta, doc='{"b":[1.0,2],"a":1.5}', name=" PLACE 1 "),
        place(2, meta={**meta, "owner": "Bo"}),
    ]
    assert counts(synced(again, **options)) == (0, 1, 1)
    assert [each["changed_fields"] for each in delivered() if each["action"] == "update"] == [["meta"]]


def test_a_python_function_over_an_arrow_array() -> None:
    def without_digits(array: pa.Array) -> pa.Array:
        return pc.replace_substring_regex(array, "[0-9]", "")

    options = {"normalize": {"name": without_digits}}
    assert counts(synced([place(1)], **options)) == (1, 0, 0)
    assert counts(synced([place(1, name="Place 77")], **options)) == (0, 0, 1)
    assert counts(synced([place(1, name="Plaza 77")], **options)) == (0, 1, 0)


def test_records_that_differ_in_what_is_left_out_alone_are_duplicates() -> None:
    rows = [place(1), place(1, meta={"fetched_at": "Tuesday", "owner": "Ann"})]
    result = synced(rows, exclude=["meta.fetched_at"])
    assert (result.counts.created, result.counts.duplicates, result.counts.conflicts) == (1, 1, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"normalize": {"name": "round(4)"}},
            "the normaliser round(4) does not fit the field name, which has the type text",
        ),
        ({"normalize": {"id": "round(4)"}}, "normalize names id, a field of the primary key"),
        ({"normalize": {"lat": "rond(4)"}}, "'rond(4)' is no normaliser"),
        ({"normalize": {"lat": lambda array: array[:1]}}, "gave 1 values for an Arrow array of 2"),
        (
            {"normalize": {"name": "casefold"}, "partition_by": ["name"]},
            "the field name parts the records, but exclude, include or normalize leaves it, or a part of it, out",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        synced([place(1), place(2)], **options)
    assert str(raised.value).startswith("sync places: ")
    assert said in str(raised.value)
    assert not Path("out.jsonl").exists() or Path("out.jsonl").read_bytes() == b""


def test_what_leads_nowhere_is_a_warning() -> None:
    result = synced(
        pa.Table.from_pylist([place(1)]), normalize={"latt": "round(4)"}, exclude=["meta.fetch_at"]
    )
    [warning] = result.warnings
    assert (
        warning == "the source has nothing at latt, meta.fetch_at, which normalize, exclude or include names"
    )


PROJECT = """
[sync.places]
source = "places.jsonl"
key = "id"
to = "out.jsonl"
exclude = ["meta.fetched_at"]

[sync.places.normalize]
lat = "round(4)"
name = ["trim", "casefold"]
"""


def test_the_file_and_the_flag_mean_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    def write(*rows: dict[str, Any]) -> None:
        Path("places.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def updated(*arguments: str) -> int:
        assert main(["sync", *arguments, "--json"]) == 0
        found: int = json.loads(capsys.readouterr().out)["updated"]
        return found

    Path("rundiff.toml").write_text(PROJECT, encoding="utf-8")
    write(place(1), place(2))
    assert updated("places") == 0
    other = {"lat": 1.12341, "name": "PLACE 1 ", "meta": {"fetched_at": "Tuesday", "owner": "Ann"}}
    write(place(1, **other), place(2))
    assert updated("places") == 0
    assert main(["schema", "places"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["lat"].endswith("compared  round(4)")
    assert lines["name"].endswith("compared  trim|casefold")
    assert lines["meta"].endswith("compared  without meta.fetched_at")
    # The flags are those of the file, spelled otherwise: nothing is told of another rule.
    flags = ["places.jsonl", "--name", "places", "--key", "id", "--to", "out.jsonl"]
    flags += [
        "--exclude",
        "meta.fetched_at",
        "--normalize",
        "lat=round( +4)",
        "--normalize",
        "name=trim | casefold",
    ]
    Path("rundiff.toml").unlink()
    write(place(1), place(2, **{**other, "lat": 2.12341, "name": "place 2"}))
    assert main(["sync", *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["updated"], told["unchanged"], told["warnings"]) == (0, 2, [])
    assert main(["sync", *flags, "--normalize", "name=json"]) == 0
    assert main(["sync", *flags, "--normalize", "lat=trim"]) == 2
    assert "does not fit the field lat" in capsys.readouterr().err


def test_verify_compares_by_the_same_rule(capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"normalize": {"name": "trim|casefold"}, "exclude": ["meta.fetched_at"]}
    sync = rundiff.Sync(
        [place(1), place(2)], "id", name="places", destination="sqlite:///p.db", into="p", **options
    )
    assert sync.run().counts.created == 2
    found = sync.verify()
    assert (found.agreed, found.drifted) == (2, 0)


def test_workers_of_one_run_compare_alike() -> None:
    def without_digits(array: pa.Array) -> pa.Array:
        return pc.replace_substring_regex(array, "[0-9]", "")

    options: dict[str, Any] = {
        "normalize": {"name": without_digits, "lat": "round(4)"},
        "exclude": ["meta.fetched_at"],
    }

    def joined(run: str, *rows: dict[str, Any]) -> RunResult:
        batches = {f"b{row['id']}": row for row in rows}
        join = {
            "name": "places",
            "run": run,
            "primary_key": "id",
            "destination": "out.jsonl",
            "batches": [*batches],
        }
        for batch, row in batches.items():
            with rundiff.Run.join(**join, **options) as worker:
                worker.add([row], batch=batch)
        with rundiff.Run.join(**join, **options) as last:
            return last.seal()

    assert counts(joined("monday", place(1), place(2))) == (2, 0, 0)
    meta = {"fetched_at": "Tuesday", "owner": "Ann"}
    again = joined("tuesday", place(1, name="Place 9", meta=meta), place(2, lat=2.12341, name="Plaza 2"))
    assert counts(again) == (0, 1, 1)
