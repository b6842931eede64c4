"""What arguments and flags become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rundiff.cli.doctor import destination_path
from rundiff.cli.flags import parts
from rundiff.cli.invocation import Invocation
from rundiff.cli.looking import parse_key
from rundiff.cli.progress import pace
from rundiff.cli.running import chosen, sync_command
from rundiff.errors import ConfigurationError
from rundiff.settings import SyncSettings

FILE = """
[defaults]
allow_empty = true

[sync.people]
source = "people.csv"
key = "id"
to = "people.jsonl"
max_deletes = 5

[sync.crm_a]
source = "a.csv"
key = "id"
to = "a.jsonl"

[sync.crm_b]
source = "b.csv"
key = "id"
to = "b.jsonl"
"""


@pytest.fixture(autouse=True)
def _with_a_project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rundiff.toml").write_text(FILE, encoding="utf-8")


def settings(*arguments: str) -> list[SyncSettings]:
    invocation = Invocation()
    given: dict[str, Any] = sync_command.make_context("sync", list(arguments), obj=invocation).params
    return chosen(invocation, given["targets"], given)


def names(*arguments: str) -> list[str]:
    return [each.name for each in settings(*arguments)]


def test_which_syncs() -> None:
    assert names() == ["people", "crm_a", "crm_b"]
    assert names("crm_b", "people", "crm_b") == ["crm_b", "people"]
    assert names("--select", "crm_*") == ["crm_a", "crm_b"]
    assert names("--select", "crm_b,people") == ["people", "crm_b"]
    assert names("--select", "crm_b", "--select", "p*") == ["people", "crm_b"]
    assert names("crm_a", "people", "--select", "crm_*") == ["crm_a"]
    with pytest.raises(ConfigurationError, match=r"has no sync poeple \(did you mean people\?\)"):
        names("poeple")
    with pytest.raises(ConfigurationError, match=r"--select x\* matches no sync"):
        names("--select", "people,x*")


def test_key_or_to_mean_a_sync_at_once() -> None:
    (made,) = settings("people", "--key", "id,region", "--to", "sqlite:///x.db", "--into", "t")
    assert (made.source, made.name, made.named) == ("people", "people", False)
    assert made.primary_key == ("id", "region")
    assert (made.destination.url, made.destination.into) == ("sqlite:///x.db", "t")
    assert made.guards.allow_empty is False
    (named,) = settings("-", "--key", "id", "--key", "region", "--to", "-", "--name", "people")
    assert (named.source, named.name, named.named) == ("-", "people", True)
    assert named.primary_key == ("id", "region")


def test_flags_win_over_the_file() -> None:
    (people,) = settings("people", "--max-deletes", "0", "--no-allow-empty", "--full-refresh", "--wait")
    assert (people.guards.max_deletes, people.guards.allow_empty) == (0, False)
    assert (people.full_refresh, people.wait) == (True, True)
    (untouched,) = settings("people")
    assert (untouched.guards.max_deletes, untouched.guards.allow_empty) == (5, True)
    assert (untouched.full_refresh, untouched.wait) == (False, False)


def test_lists_and_types() -> None:
    (made,) = settings(
        *("a.csv", "--key", "id", "--to", "-", "--exclude", "etl_*,loaded", "--exclude", "x"),
        *("--types", "zip=text,price=decimal(10,2)", "--types", "day=date", "--null", "NA,-", "--null", ""),
        *("--delimiter", "\\t", "--max-delete-percent", "2.5", "--on-conflict", "max:day"),
    )
    assert made.comparison.exclude == ("etl_*", "loaded", "x")
    assert made.reading.types == {"zip": "text", "price": "decimal(10,2)", "day": "date"}
    assert made.reading.null == ("NA", "-", "")
    assert made.reading.delimiter == "\t"
    assert made.guards.max_delete_percent == 2.5
    assert made.policies.on_conflict == "max:day"


def test_home_json_and_quiet_are_remembered() -> None:
    invocation = Invocation()
    sync_command.make_context("sync", ["--home", "x", "--json", "--quiet"], obj=invocation)
    assert (invocation.home, invocation.as_json, invocation.quiet) == ("x", True, True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], ("a",)),
        (["a,b", "c"], ("a", "b", "c")),
        (['"a,b",c'], ("a,b", "c")),
        ([""], ("",)),
        ([], ()),
    ],
)
def test_parts(values: list[str], expected: tuple[str, ...]) -> None:
    assert parts(values) == expected


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("3", ["id"], {"id": "3"}),
        ("id=3", ["id"], {"id": "3"}),
        ("a,b", ["id"], {"id": "a,b"}),
        ("x=1", ["id"], {"id": "x=1"}),
        ("id=id=3", ["id"], {"id": "id=3"}),
        ("3,EU", ["id", "region"], {"id": "3", "region": "EU"}),
        ("region=EU,id=3", ["id", "region"], {"id": "3", "region": "EU"}),
        ('"Smith, Ann",EU', ["id", "region"], {"id": "Smith, Ann", "region": "EU"}),
        ("a=b,EU", ["id", "region"], {"id": "a=b", "region": "EU"}),
        ("a=b,c=d", ["id", "region"], {"id": "a=b", "region": "c=d"}),
    ],
)
def test_the_key_of_one_record(text: str, fields: list[str], expected: dict[str, str]) -> None:
    assert parse_key(text, fields) == expected


@pytest.mark.parametrize("text", ["3", "3,EU,x", "id=3", ""])
def test_a_key_with_too_few_or_too_many_values(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_key(text, ["id", "region"])
    assert str(caught.value) == "The key has the fields id, region: write it as ID,REGION."


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        ("sqlite:////data/crm.db#people", Path("/data/crm.db")),
        ("duckdb:////data/dw.duckdb#main.people", Path("/data/dw.duckdb")),
        ("/data/changes.jsonl", Path("/data/changes.jsonl")),
        ("/data/changes.parquet", Path("/data/changes.parquet")),
        ("-", None),
        ("postgresql://db/crm#people", None),
    ],
)
def test_the_file_of_a_destination(stored: str, path: Path | None) -> None:
    assert destination_path(stored) == path


def test_pace() -> None:
    assert pace(0, 5.0, "records") == "0 records"
    assert pace(1200, 0.01, "records") == "1,200 records"
    assert pace(1200, 3.0, "records") == "1,200 records, 400 a second"
