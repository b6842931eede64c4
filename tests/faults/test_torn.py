"""Files of the home that are cut or altered: told in one sentence, and nothing wrong is delivered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import rundiff
from rundiff.destinations.sql import SqlDestination
from rundiff.errors import BaselineLost, StorageError
from tests.faults.worlds import World, rows


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4, len(content) // 2, 16):
        content[place] ^= 0x20
    path.write_bytes(bytes(content))


def gone(path: Path) -> None:
    path.unlink()


damages = pytest.mark.parametrize("damage", [cut, emptied, altered, gone])
Damage = Callable[[Path], None]


def current(world: World, part: str) -> Path:
    """The manifest of the last run, or the segment of that kind."""
    return max(
        (path for path in world.signatures() if path.name.startswith(part)),
        key=lambda path: (path.name if part == "manifest" else "", path.stat().st_mtime_ns),
    )


@damages
@pytest.mark.parametrize("part", ["manifest", "base", "overlay"])
def test_a_damaged_baseline_is_lost_and_rebuilt(world: World, part: str, damage: Damage) -> None:
    everyone = rows(*range(30))
    world.run(everyone)
    world.run([*everyone, *rows(30)])
    before = world.table()
    damage(current(world, part))
    for _ in range(2):
        with pytest.raises(BaselineLost, match="rundiff rebuild s"):
            world.run(rows(1))
        assert world.table() == before
    with world.workspace() as workspace:
        assert workspace.rebuild("s") == 31
    assert world.run(everyone).counts.deleted == 1


@damages
def test_the_pointer_is_only_a_cache(world: World, damage: Damage) -> None:
    world.run(rows(1, 2))
    [pointer] = world.home.glob("signatures/*/current.json")
    damage(pointer)
    result = world.run(rows(1))
    assert (result.baseline, result.counts.deleted) == ("found", 1)
    assert world.table() == {1: "a"}


@damages
@pytest.mark.parametrize("name", ["meta.json", "updates.parquet", "creates.parquet"])
def test_a_damaged_write_log_is_not_delivered(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, damage: Damage
) -> None:
    world.run(rows(1, 2, 3))
    changed = [*rows(1, 2, v="b"), *rows(4, 5, 6)]
    with monkeypatch.context() as patched:
        patched.setattr(SqlDestination, "deliver", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run(changed)
    [path] = world.home.glob(f"syncs/*/log/00000002/{name}")
    damage(path)
    with pytest.raises(StorageError, match="restore it from a backup, or `rundiff reset` the sync"):
        world.run(changed, batch_size=1)
    assert world.table().keys() <= {1, 2, 3}
    assert world.run(changed, full_refresh=True).status == "committed"
    assert world.table() == {1: "b", 2: "b", 4: "a", 5: "a", 6: "a"}


@damages
def test_former_data_that_can_not_be_read_does_not_hide_a_change(world: World, damage: Damage) -> None:
    world.run(rows(1, 2, 3))
    [path] = world.home.glob("syncs/*/log/00000001/creates.parquet")
    damage(path)
    changed = rows(1, 2, v="b")
    result = world.run(changed)
    assert (result.counts.updated, result.counts.deleted) == (2, 1)
    assert world.table() == {1: "b", 2: "b"}


@damages
@pytest.mark.parametrize("name", ["meta.json", "deletes.parquet"])
def test_a_damaged_held_set_is_not_approved(world: World, name: str, damage: Damage) -> None:
    world.run(rows(1, 2, 3, 4))
    world.run(rows(1), max_deletes=1)
    [path] = world.home.glob(f"syncs/*/held/00000002/{name}")
    damage(path)
    with pytest.raises(StorageError, match="restore it from a backup"):
        world.sync(rows(1)).approve()
    assert len(world.table()) == 4
    with world.workspace() as workspace:
        assert workspace.syncs()[0].held is not None
        assert workspace.discard("s").count == 3
    assert world.run(rows(1)).counts.deleted == 3


@damages
def test_a_damaged_database_is_told(world: World, damage: Damage) -> None:
    world.run(rows(1, 2))
    world.keep("d.db")
    damage(world.home / "rundiff.sqlite")
    with pytest.raises(rundiff.RundiffError) as caught:
        world.run(rows(1))
    assert isinstance(caught.value, StorageError | BaselineLost)
    assert world.table() == {1: "a", 2: "a"}


@damages
def test_a_damaged_plan_is_told(world: World, damage: Damage) -> None:
    world.run(rows(1, 2))
    plan = world.folder / "plan"
    world.sync(rows(1)).plan(plan)
    damage(plan)
    with pytest.raises(rundiff.ConfigurationError, match="is not a plan"):
        world.sync(rows(1)).apply(plan)
    assert world.table() == {1: "a", 2: "a"}
