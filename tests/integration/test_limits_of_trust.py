"""What a plan, an approval and a look may do, and what they must refuse."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

Row = dict[str, Any]


def rows(count: int, v: str = "a") -> list[Row]:
    return [{"id": number, "v": v} for number in range(count)]


def sync(folder: Path, source: Any, name: str = "s", **options: Any) -> rundiff.Sync:
    given = {"destination": f"sqlite:///{folder / 'd.db'}", "into": f"t_{name}", **options}
    return rundiff.Sync(source, "id", name=name, **given)


def table(folder: Path, name: str = "s") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / "d.db")
    try:
        return connection.execute(f"SELECT id, v FROM t_{name} ORDER BY id").fetchall()
    finally:
        connection.close()


def contents(*folders: Path) -> dict[str, bytes]:
    """All files but SQLite's scratch files, by path."""
    found = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*"))]
    return {str(p): p.read_bytes() for p in found if p.is_file() and not p.name.endswith(("-wal", "-shm"))}


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_plan_changes_no_byte(tmp_path: Path, home: Path, scheme: str) -> None:
    where = {"destination": f"{scheme}:///{tmp_path / 'd.db'}"}
    sync(tmp_path, rows(5), **where).run()
    before = contents(home, tmp_path / "d.db")
    out = tmp_path / "plan"
    plan = sync(tmp_path, rows(3, "b"), **where).plan(out)
    assert (plan.result.counts.updated, plan.result.counts.deleted) == (3, 2)
    assert contents(home, tmp_path / "d.db") == before
    assert sync(tmp_path, rows(3, "b"), **where).apply(out).counts.written == 5
    with pytest.raises(rundiff.StateChanged):
        sync(tmp_path, rows(3, "b"), **where).apply(out)


def test_a_plan_of_another_sync_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "plan"
    sync(tmp_path, rows(3), "one").plan(out)
    with pytest.raises(rundiff.ConfigurationError, match="made for sync one"):
        sync(tmp_path, rows(3), "two").apply(out)
    elsewhere = sync(tmp_path, rows(3), "one", into="other")
    with pytest.raises(rundiff.ConfigurationError, match=r"made for sqlite:.*#t_one, not for .*#other"):
        elsewhere.apply(out)
    assert sync(tmp_path, rows(3), "one").apply(out).counts.created == 3


def test_a_plan_refuses_what_a_run_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(tmp_path, rows(3)).run()
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", "a secret of more than thirty-two characters")
    with pytest.raises(rundiff.ConfigurationError, match="was signed without a signing key"):
        sync(tmp_path, rows(3)).plan()


def test_a_plan_of_a_full_refresh_is_the_full_refresh(tmp_path: Path) -> None:
    sync(tmp_path, rows(3)).run()
    out = tmp_path / "plan"
    assert sync(tmp_path, rows(3), full_refresh=True).plan(out).result.counts.updated == 3
    assert sync(tmp_path, rows(3)).apply(out).counts.updated == 3


def test_what_nobody_would_receive_is_not_delivered() -> None:
    with pytest.raises(rundiff.ConfigurationError, match="has no destination"):
        rundiff.Sync(rows(3), "id", name="c").run()
    assert len(list(rundiff.changes(rows(100), primary_key="id", name="c"))) == 100
    held = rundiff.changes(rows(50), primary_key="id", name="c")
    assert list(held) == []
    assert held.result is not None
    assert held.result.counts.deletes_held == 50
    with pytest.raises(rundiff.ConfigurationError, match="max_delete_percent=100"):
        rundiff.Sync(rows(50), "id", name="c").approve()
    taken = list(rundiff.changes(rows(50), primary_key="id", name="c", max_delete_percent=100))
    assert [record.destination_action for record in taken] == ["delete"] * 50


def test_an_approval_binds_to_all_changes_of_a_held_run(tmp_path: Path) -> None:
    sync(tmp_path, rows(5)).run()
    digests = []
    for value in ("b", "c"):
        result = sync(tmp_path, rows(5, value), max_updates_percent=50).run()
        assert (result.status, result.counts.written) == ("held", 0)
        with Workspace(Storage(home=str(Path(tmp_path / "home")))) as workspace:
            held = workspace.syncs()[0].held
        assert held is not None
        digests.append(held.digest)
    assert digests[0] != digests[1]
    with pytest.raises(rundiff.StateChanged, match="what is held now is not what"):
        sync(tmp_path, rows(5, "b")).approve(digests[0])
    assert table(tmp_path) == [(number, "a") for number in range(5)]
    assert sync(tmp_path, rows(5)).approve(digests[1]).counts.updated == 5
    assert table(tmp_path) == [(number, "c") for number in range(5)]


@pytest.mark.parametrize("odd", ["it's", 'say "hi"', "[brackets]", "st*r", "a b#%", "ünï", "semi;colon"])
def test_homes_with_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    folder = tmp_path / odd
    folder.mkdir()
    monkeypatch.setenv("RUNDIFF_HOME", str(folder / "home"))
    for count in (3, 2):
        sync(folder, rows(count)).run()
    with Workspace(Storage(home=str(folder / "home"))) as workspace:
        found = workspace.sql(
            "SELECT destination_action AS a, count(*) AS n FROM sync_write_records GROUP BY a ORDER BY a"
        )
    assert found.to_pylist() == [{"a": "delete", "n": 1}, {"a": "insert", "n": 3}]
    assert [entry.change.action for entry in sync(folder, []).history({"id": 2})] == ["insert", "delete"]


def test_retention_prunes_what_no_run_needs(tmp_path: Path, home: Path) -> None:
    import msgspec

    def run(count: int, days: float) -> None:
        settings = sync(tmp_path, rows(count))._settings
        with Workspace(Storage(home=str(home), retention_days=days)) as workspace:
            workspace.run(msgspec.structs.replace(settings, source=rows(count)))

    def manifests() -> list[str]:
        return sorted(path.name[:17] for path in home.glob("signatures/*/manifest-*"))

    for count in (30, 31, 32):
        run(count, 7)
    assert len(manifests()) == 3
    run(33, 0)
    assert len(manifests()) == 1
    segments = list(home.glob("signatures/*/*.arrow"))
    assert len(segments) == 2
    assert len(list(home.glob("syncs/*/log/*"))) == 4
    result = sync(tmp_path, rows(32)).run()
    assert (result.counts.unchanged, result.counts.deleted) == (32, 1)


def test_a_table_that_was_dropped_alone_is_lost(tmp_path: Path) -> None:
    sync(tmp_path, rows(5)).run()
    connection = sqlite3.connect(tmp_path / "d.db")
    connection.execute("DROP TABLE t_s")
    connection.close()
    with pytest.raises(rundiff.DestinationLost, match="--full-refresh"):
        sync(tmp_path, rows(6)).run()
    sync(tmp_path, rows(6), full_refresh=True).run()
    assert len(table(tmp_path)) == 6
