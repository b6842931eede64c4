"""Each partition is judged by itself, in full runs, too, whatever keeps the state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.cli import main
from rundiff.engine.workspace import Workspace
from rundiff.errors import ConfigurationError, StateChanged
from rundiff.settings import Storage

Row = dict[str, Any]
Run = Callable[..., rundiff.Run]


@pytest.fixture(params=["embedded", "postgresql and valkey"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    home = str(tmp_path / "home")
    if request.param == "embedded":
        return Storage(home=home)
    database = request.getfixturevalue("postgresql_server").create_database()
    return Storage(home=home, database=database, signatures=request.getfixturevalue("valkey_url"))


@pytest.fixture
def run(storage: Storage, tmp_path: Path) -> Run:
    def go(source: Any, **options: Any) -> rundiff.Run:
        return rundiff.sync(
            source, primary_key="id", name="s", destination=f"sqlite:///{tmp_path / 'd.db'}", into="t",
            home=storage.home, database=storage.database, signatures=storage.signatures,
            **{"partition_by": ["region"], "scope": "full", **options},
        )  # fmt: skip

    return go


def region(name: str, first: int, count: int, v: str = "x") -> list[Row]:
    return [{"id": i, "region": name, "v": v} for i in range(first, first + count)]


US = region("US", 10_000, 3000)


def test_a_partition_that_vanishes_from_a_full_run_is_held(run: Run, storage: Storage) -> None:
    run(region("EU", 0, 120) + region("AU", 500, 20) + US)
    # 120 of 3,140 are less than 10 %. 20 are too few to be judged by themselves.
    result = run(US)
    assert (result.status, result.scope, result.counts.deletes_held) == ("held", "full", 140)
    assert result.held_reason == "none of the 120 records of the partition region=EU was read (allow_empty)"
    with Workspace(storage) as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert held.reason == result.held_reason
        # The next run finds something else, and what was shown can't be approved any more.
        assert run(US[1:]).counts.deletes_held == 141
        with pytest.raises(StateChanged, match="is not what"):
            workspace.approve("s", held.digest)
        now = workspace.show("s")[0].held
        assert now is not None
        assert workspace.approve("s", now.digest).counts.deleted == 141
    assert run(US[1:]).status == "committed"


def test_each_large_partition_is_judged_in_a_full_run(run: Run) -> None:
    everything = region("EU", 0, 150) + US
    run(everything)
    assert run(everything[10:]).counts.deleted == 10
    result = run(everything[30:])
    assert result.held_reason == (
        "20 deletions are 14.3 % of the 140 records of the partition region=EU, and max_delete_percent is 10"
    )
    changed = region("EU", 10, 30, "new") + everything[40:]
    result = run(changed, max_updates_percent=10)
    assert (result.status, result.counts.written) == ("held", 0)
    assert "30 updates are 21.4 % of the 140 records of the partition region=EU" in (result.held_reason or "")
    result = run(everything[10:] + region("EU", 7000, 30), max_creates_percent=10)
    assert "30 creates are 21.4 % of the 140 records of the partition region=EU" in (result.held_reason or "")
    # Records that moved out of a partition were read.
    assert run(region("US", 0, 150) + US).counts.deleted == 0


def test_the_guards_of_partitions_may_be_others(run: Run) -> None:
    everything = region("EU", 0, 5) + region("AU", 500, 150) + US
    run(everything)
    less = everything[3:]
    assert run(less, partition_guards={"max_delete_percent": 50}).held_reason == (
        "3 deletions are 60.0 % of the 5 records of the partition region=EU, "
        "and max_delete_percent of partition_guards is 50"
    )
    assert run(less, partition_guards={"min_records": 3}).held_reason == (
        "2 records of the partition region=EU were read, fewer than min_records = 3 of partition_guards"
    )
    # One of another key and one that moved in were read beside the two.
    replaced = region("EU", 3, 2) + region("EU", 40, 1) + region("EU", 500, 1) + everything[6:]
    assert run(replaced, partition_guards={"min_records": 4}, on_guard="fail").counts.deleted == 3
    run(everything, max_delete_percent=100)
    vanished = everything[5:]
    assert run(vanished, partition_guards={"allow_empty": False}).held_reason == (
        "none of the 5 records of the partition region=EU was read (allow_empty of partition_guards)"
    )
    moved_in = {"allow_empty": False}
    assert run(vanished + region("EU", 900, 1), partition_guards=moved_in).counts.deleted == 5
    allowed = {"allow_empty": True, "max_delete_percent": 100}
    result = run(US, partition_guards=allowed)
    assert (result.status, result.counts.deleted) == ("committed", 151)


def test_several_partitions_are_counted_and_marked_ones_are_judged(run: Run) -> None:
    everything = [row for i in range(20) for row in region(f"R{i:02}", 1000 * i, 200)]
    run(everything)
    lost = [row for row in everything if row["region"] not in ("R03", "R07")]
    reason = run(lost, max_delete_percent=50).held_reason or ""
    assert reason.replace("R07", "R03") == (
        "none of the 200 records of the partition region=R03 was read (allow_empty); "
        "the same holds for 1 other partition"
    )
    marked = [{**row, "gone": row["region"] == "R05" and row["id"] % 2 == 0} for row in everything]
    result = run(marked, deleted_when="gone", exclude=["gone"])
    assert result.held_reason == (
        "100 deletions are 50.0 % of the 200 records of the partition region=R05, and max_delete_percent is 10"
    )


def test_a_sync_that_names_its_partitions_late_is_judged_at_once(run: Run) -> None:
    everything = region("EU", 0, 120) + US
    run(everything, partition_by=[])
    assert run(US).held_reason == "none of the 120 records of the partition region=EU was read (allow_empty)"


def test_a_run_of_several_workers_is_judged_like_others(run: Run, storage: Storage, tmp_path: Path) -> None:
    run(region("EU", 0, 120) + US)
    with rundiff.Run.join(
        run="r1", batches=["a", "b"], primary_key="id", name="s", destination=f"sqlite:///{tmp_path / 'd.db'}",
        into="t", home=storage.home, database=storage.database, signatures=storage.signatures,
    ) as together:  # fmt: skip
        together.add(US[:1500], batch="a")
        together.add(US[1500:], batch="b")
        result = together.seal()
    assert (result.status, result.held_reason) == (
        "held",
        "none of the 120 records of the partition region=EU was read (allow_empty)",
    )


def test_a_signing_key_that_is_rotated_hides_no_partition(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(region("EU", 0, 120) + US)
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", "k" * 40)
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY_FORMER", "")
    result = run(region("EU", 0, 60, "new") + region("EU", 60, 60) + US, max_updates_percent=20)
    assert "60 updates are 50.0 % of the 120 records of the partition region=EU" in (result.held_reason or "")
    assert (run(US).held_reason or "").startswith("none of the 120 records of the partition region=EU")


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        ({"max_delete": 5}, "has no guard `max_delete`"),
        ({"max_deletes": "many"}, "`max_deletes` in `partition_guards` must be a number from 0 on"),
        ({"max_delete_percent": -1}, "`max_delete_percent` in `partition_guards` must be a number from 0 on"),
        ({"max_delete_percent": float("nan")}, "must be a number from 0 on"),
        ({"allow_empty": "perhaps"}, "`allow_empty` in `partition_guards` must be true or false"),
    ],
)
def test_guards_that_mean_nothing_are_refused(tmp_path: Path, guards: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rundiff.sync(US, primary_key="id", destination=str(tmp_path / "c.jsonl"), partition_guards=guards)


def test_guards_of_partitions_by_flag_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("id,region\n1,EU\n2,EU\n3,US\n")
    flags = ["sync", "s.csv", "--key", "id", "--to", "c.jsonl", "--partition-by", "region", "--scope", "full"]
    assert main(flags) == 0
    Path("s.csv").write_text("id,region\n1,EU\n2,EU\n")
    capsys.readouterr()
    assert main([*flags, "--partition-guards", "allow_empty=false"]) == 3
    assert "the only record of the partition region=US was not read" in "".join(capsys.readouterr())
    Path("rundiff.toml").write_text(
        '[sync.s]\nsource = "s.csv"\nkey = "id"\nto = "c.jsonl"\npartition_by = ["region"]\nscope = "full"\n'
        "[sync.s.partition_guards]\nmax_deletes = 0\n"
    )
    assert main(["sync"]) == 3
    assert "1 deletion in the partition region=US is more than max_deletes = 0" in "".join(
        capsys.readouterr()
    )
