"""Two real tables, release after release, against a comparison that knows nothing of signatures.

Where the tables come from stands in tests/data/README.md and demo/data/README.md.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.sqlitefiles import opened

from rundiff.cli import main

ROOT = Path(__file__).parents[2]
Rows = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Table:
    """A table with its releases, oldest first."""

    key: str
    fields: tuple[str, ...]
    releases: tuple[Path, ...]

    def rows(self, release: Path) -> Rows:
        """Read a release with the standard library: rows by key, empty fields as None."""
        if release.suffix == ".csv":
            with release.open(encoding="utf-8", newline="") as file:
                records: list[Mapping[str, Any]] = list(csv.DictReader(file))
        else:
            records = [json.loads(line) for line in release.read_text(encoding="utf-8").splitlines()]
        found = {
            record[self.key]: tuple(None if record[name] == "" else record[name] for name in self.fields)
            for record in records
        }
        assert len(found) == len(records), "the fixture has a key twice"
        return found


def _releases(pattern: str, *folders: str) -> tuple[Path, ...]:
    return tuple(sorted((p for f in folders for p in (ROOT / f).glob(pattern)), key=lambda path: path.name))


TIMEZONES = Table(
    key="zone",
    fields=("zone", "country", "coordinates", "comment"),
    releases=_releases("timezones-*.csv", "demo/data", "tests/data/timezones"),
)
LICENCES = Table(
    key="id",
    fields=("id", "name", "deprecated_id", "fsf_libre", "osi_approved"),
    releases=_releases("licences-*.jsonl", "tests/data/licences"),
)


def differences(before: Rows, after: Rows) -> dict[str, int]:
    """Count what changed from one release to the next."""
    return {
        "created": len(after.keys() - before.keys()),
        "updated": sum(before[key] != after[key] for key in before.keys() & after.keys()),
        "deleted": len(before.keys() - after.keys()),
        "unchanged": sum(before[key] == after[key] for key in before.keys() & after.keys()),
    }


def delivered(scheme: str, path: Path, table: Table) -> Rows:
    """Read the destination's table."""
    query = f"SELECT {', '.join(table.fields)} FROM delivered"
    if scheme == "sqlite":
        with opened(path) as database:
            rows: Sequence[Any] = database.execute(query).fetchall()
        database.close()
    else:
        with duckdb.connect(path, read_only=True) as connection:
            rows = connection.execute(query).fetchall()
    place = table.fields.index(table.key)
    # SQLite has no booleans: 0 and 1 equal False and True.
    return {row[place]: tuple(row) for row in rows}


def sync(
    source: Path, table: Table, url: str, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, Any]:
    """Run the command; give its exit code and the object it prints."""
    code = main(
        [
            "sync",
            str(source),
            "--key",
            table.key,
            "--to",
            url,
            "--into",
            "delivered",
            "--name",
            "real",
            "--json",
            *more,
        ]
    )
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
@pytest.mark.parametrize("table", [TIMEZONES, LICENCES], ids=["timezones", "licences"])
def test_the_destination_follows_each_release(
    table: Table, scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(table.releases) >= 4
    path = tmp_path / "real.db"
    before: Rows = {}
    seen = dict.fromkeys(("created", "updated", "deleted"), 0)
    for release in table.releases:
        after = table.rows(release)
        code, result = sync(release, table, f"{scheme}:///{path}", capsys)
        expected = differences(before, after)
        assert code == 0
        assert {name: result[name] for name in expected} == expected, release.name
        assert result["records_read"] == len(after)
        assert delivered(scheme, path, table) == after, release.name
        for name in seen:
            seen[name] += expected[name]
        before = after
    assert seen["created"] > len(table.rows(table.releases[0]))
    assert seen["updated"] > 0
    if table is TIMEZONES:
        assert seen["deleted"] > 0


def test_going_back_to_the_first_release_undoes_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "real.db"
    first, last = TIMEZONES.releases[0], TIMEZONES.releases[-1]
    for release in (first, last, first):
        code, result = sync(release, TIMEZONES, f"sqlite:///{path}", capsys)
        assert code == 0
    assert result["created"] == differences(TIMEZONES.rows(last), TIMEZONES.rows(first))["created"] > 0
    assert delivered("sqlite", path, TIMEZONES) == TIMEZONES.rows(first)


def test_a_release_that_was_cut_short_deletes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, source = tmp_path / "real.db", tmp_path / "cut.csv"
    whole, following = TIMEZONES.releases[-3:-1]
    sync(whole, TIMEZONES, f"sqlite:///{path}", capsys)
    before, after = TIMEZONES.rows(whole), TIMEZONES.rows(following)

    # Cut within a line: the reading is not complete, and the torn record is not delivered.
    text = following.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    source.write_text("".join(lines[:300]) + lines[300][:10], encoding="utf-8")
    code, result = sync(source, TIMEZONES, f"sqlite:///{path}", capsys)
    assert (code, result["complete"], result["unreadable"], result["deleted"]) == (4, False, 1, 0)

    # Cut between two lines: no reader can see that, but the guard does.
    source.write_text("".join(lines[:300]), encoding="utf-8")
    code, result = sync(source, TIMEZONES, f"sqlite:///{path}", capsys)
    assert (code, result["status"], result["deleted"]) == (3, "held", 0)
    kept = TIMEZONES.rows(source)
    assert result["deletes_held"] == len(before.keys() - kept.keys())
    assert delivered("sqlite", path, TIMEZONES) == {**before, **kept}

    code, result = sync(following, TIMEZONES, f"sqlite:///{path}", capsys)
    assert (code, result["status"]) == (0, "committed")
    assert delivered("sqlite", path, TIMEZONES) == after
