"""What is lost or older than it should be is never taken for empty, and nothing is deleted for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.cli import main
from rundiff.errors import BaselineLost, DestinationLost, StateChanged, StorageError
from tests.faults.worlds import World, rows

DATABASE = "home/rundiff.sqlite"


def three_runs(world: World) -> None:
    world.run(rows(1, 2, 3, 4))
    world.run(rows(1, 2, 3))
    world.run([*rows(1, 2), *rows(3, v="b")])


def lose_signatures(world: World) -> None:
    shutil.rmtree(world.home / "signatures")


def lose_home(world: World) -> None:
    shutil.rmtree(world.home)


def lose_manifests(world: World) -> None:
    for path in world.signatures():
        if path.name.startswith("manifest"):
            path.unlink()


@pytest.mark.parametrize("lose", [lose_signatures, lose_home, lose_manifests])
class TestLostBaseline:
    def test_it_fails_and_writes_nothing(self, world: World, lose: Any) -> None:
        three_runs(world)
        before = world.table()
        lose(world)
        for _ in range(2):
            with pytest.raises(BaselineLost, match=r"--on-lost-baseline rebaseline .* or resend") as caught:
                world.run(rows(2, 5))
            # With the home the write log is lost, too: there is nothing to make the baseline anew from.
            assert ("rundiff rebuild s" in str(caught.value)) == (lose is not lose_home)
            assert world.table() == before

    def test_resend_writes_all_and_deletes_nothing(self, world: World, lose: Any) -> None:
        three_runs(world)
        lose(world)
        result = world.run(rows(2, 5), on_lost_baseline="resend")
        assert (result.baseline, result.counts.created, result.counts.deleted) == ("lost", 2, 0)
        assert world.table() == {1: "a", 2: "a", 3: "b", 5: "a"}
        again = world.run(rows(2))
        assert (again.baseline, again.counts.deleted) == ("found", 1)
        assert world.table() == {1: "a", 2: "a", 3: "b"}

    def test_rebaseline_writes_nothing(self, world: World, lose: Any) -> None:
        three_runs(world)
        before = world.table()
        lose(world)
        result = world.run(rows(2, 3), on_lost_baseline="rebaseline")
        assert (result.baseline, result.counts.written) == ("lost", 0)
        assert world.table() == before
        again = world.run(rows(2, v="c"))
        assert (again.counts.updated, again.counts.deleted) == (1, 1)
        assert world.table() == {1: "a", 2: "c"}

    def test_approving_under_it_is_refused(self, world: World, lose: Any) -> None:
        world.run(rows(1, 2, 3, 4))
        world.run(rows(1), max_deletes=1)
        before = world.table()
        lose(world)
        with pytest.raises(rundiff.RundiffError):
            world.sync(rows(1)).approve()
        assert world.table() == before
        with pytest.raises(BaselineLost):
            world.run(rows(1))


def test_rebuild_brings_the_baseline_back(world: World) -> None:
    three_runs(world)
    lose_signatures(world)
    with world.workspace() as workspace:
        assert workspace.rebuild("s") == 3
    result = world.run([*rows(1, 2), *rows(3, v="b")])
    assert (result.baseline, result.counts.unchanged, result.counts.written) == ("found", 3, 0)


def test_a_lost_baseline_exits_with_1(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.folder / "s.csv").write_text("id,v\n1,a\n2,a\n")
    arguments = ["sync", str(world.folder / "s.csv"), "--key", "id", "--to", f"sqlite:///{world.destination}"]
    arguments += ["--into", "t", "--home", str(world.home), "--name", "s"]
    assert main(arguments) == 0
    lose_signatures(world)
    capsys.readouterr()
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("rundiff: sync s: the baseline is lost: ")
    assert told.count("\n") == 1
    assert len(world.table()) == 2


def lose_the_file(world: World) -> None:
    world.destination.unlink()


def lose_the_watermark(world: World) -> None:
    world.sql("DELETE FROM t; DELETE FROM _rundiff_watermarks")


def lose_the_table_and_the_watermarks(world: World) -> None:
    world.sql("DROP TABLE t; DROP TABLE _rundiff_watermarks")


def get_an_older_copy(world: World) -> None:
    world.restore("d.db")


@pytest.mark.parametrize(
    "lose", [lose_the_file, lose_the_watermark, lose_the_table_and_the_watermarks, get_an_older_copy]
)
class TestLostDestination:
    def test_it_fails_and_a_full_refresh_makes_it_the_source(self, world: World, lose: Any) -> None:
        world.run(rows(1, 2, 3, 4))
        world.keep("d.db")
        world.run(rows(1, 2, 3))
        world.run([*rows(1, 2), *rows(3, v="b")])
        lose(world)
        source = [*rows(1, 5), *rows(3, v="b")]
        for _ in range(2):
            with pytest.raises(DestinationLost, match="--full-refresh"):
                world.run(source)
        result = world.run(source, full_refresh=True)
        assert result.status == "committed"
        assert world.table() == {1: "a", 3: "b", 5: "a"}
        again = world.run(source)
        assert (again.counts.unchanged, again.counts.written) == (3, 0)

    def test_a_plan_fails_like_a_run(self, world: World, lose: Any) -> None:
        world.run(rows(1, 2))
        world.keep("d.db")
        world.run(rows(1, 2, 3))
        lose(world)
        with pytest.raises(DestinationLost, match="--full-refresh"):
            world.sync(rows(1)).plan()
        plan = world.sync(rows(1, 2), full_refresh=True).plan()
        assert (plan.result.counts.updated, plan.result.counts.deleted) == (2, 1)


def test_a_full_refresh_of_a_sound_destination_writes_everything_once(world: World) -> None:
    three_runs(world)
    result = world.run([*rows(1, 2), *rows(3, v="b")], full_refresh=True)
    assert (result.counts.updated, result.counts.deleted) == (3, 0)
    assert world.table() == {1: "a", 2: "a", 3: "b"}


@pytest.mark.parametrize("kept", [[DATABASE], ["home"]], ids=["database", "home"])
@pytest.mark.parametrize("after", [1, 2])
class TestOlderDatabase:
    """The database, or the whole home, is an older copy; the destination went on."""

    def restored(self, world: World, kept: list[str], after: int) -> None:
        for run in range(1, 5):
            world.run(rows(*range(run, run + 3)))
            if run == after:
                world.keep(*kept)
        world.restore(*kept)

    def test_it_is_told_however_often_it_is_tried(self, world: World, kept: list[str], after: int) -> None:
        self.restored(world, kept, after)
        before = world.table()
        for _ in range(6):
            with pytest.raises(BaselineLost, match="restored from an older copy"):
                world.run(rows(4, 5, 6, 7))
        assert world.table() == before

    @pytest.mark.parametrize("failing", [0, 2, 5])
    def test_resend_makes_it_whole(self, world: World, kept: list[str], after: int, failing: int) -> None:
        self.restored(world, kept, after)
        for _ in range(failing):
            with pytest.raises(BaselineLost):
                world.run(rows(4, 5, 6, 7))
        result = world.run(rows(4, 5, 6, 7), on_lost_baseline="resend")
        assert (result.baseline, result.counts.created) == ("lost", 4)
        assert world.table() == {4: "a", 5: "a", 6: "a", 7: "a"}
        again = world.run(rows(5, 6, 7))
        assert (again.baseline, again.counts.deleted, again.warnings) == ("found", 1, ())
        assert world.table() == {5: "a", 6: "a", 7: "a"}


def test_a_database_copied_in_the_middle_of_a_delivery(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy knows a delivery that was finished since, and runs after it."""
    from rundiff.destinations.sql import SqlDestination

    world.run(rows(1, 2, 3))
    deliver = SqlDestination.deliver
    with monkeypatch.context() as patched:

        def broken(self: Any, *arguments: Any) -> Any:
            deliver(self, *arguments)
            raise KeyboardInterrupt

        patched.setattr(SqlDestination, "deliver", broken)
        with pytest.raises(KeyboardInterrupt):
            world.run(rows(1, 2, 3, 4, 5), batch_size=1)
    world.keep(DATABASE)
    world.run(rows(1, 2, 3, 4, 5))
    world.run(rows(1, 2, 3, 4, 5, 6))
    world.restore(DATABASE)
    for _ in range(3):
        with pytest.raises(BaselineLost, match="restored from an older copy"):
            world.run(rows(1))
    result = world.run(rows(1, 2, 7), on_lost_baseline="resend")
    assert result.counts.created == 3
    assert world.table() == dict.fromkeys(range(1, 8), "a")
    assert world.run(rows(1, 2)).counts.deleted == 1


@pytest.mark.parametrize(
    ("mode", "lose", "ways"),
    [
        ("mirror", lose_signatures, ("rebuild", "reset", "adopt", "rebaseline", "resend")),
        ("mirror", lose_home, ("adopt", "rebaseline", "resend")),
        ("append", lose_signatures, ("rebuild", "reset", "adopt", "rebaseline")),
        ("history", lose_home, ("adopt", "rebaseline")),
    ],
)
def test_the_message_offers_what_works_and_nothing_else(
    world: World, mode: Any, lose: Any, ways: tuple[str, ...]
) -> None:
    world.run(rows(1, 2), mode=mode)
    lose(world)
    with pytest.raises(BaselineLost) as caught:
        world.run(rows(1, 2), mode=mode)
    words = str(caught.value).partition("Nothing was written. ")[2]
    assert tuple(
        re.findall(r"rundiff (\w+)|(rebaseline|resend) \(", words.replace("rundiff sync", ""))
    ) == tuple((way, "") if way in ("rebuild", "reset", "adopt") else ("", way) for way in ways)


def test_a_stream_can_not_be_adopted(tmp_path: Path, home: Path) -> None:
    stream: dict[str, Any] = {"primary_key": "id", "name": "s", "destination": str(tmp_path / "out.jsonl")}
    rundiff.sync([{"id": 1}], **stream)
    shutil.rmtree(home / "signatures")
    with pytest.raises(
        BaselineLost, match=r"Use `rundiff rebuild s`.*; or run with --on-lost-baseline"
    ) as caught:
        rundiff.sync([{"id": 1}], **stream)
    assert "rundiff adopt" not in str(caught.value)


def test_a_first_run_that_was_cut_off_keeps_its_destination(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rundiff.destinations.sql import SqlDestination

    with monkeypatch.context() as patched:
        patched.setattr(SqlDestination, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run(rows(1, 2, 3), batch_size=1)
    assert len(world.table()) == 3
    with pytest.raises(rundiff.SyncMismatch, match=r"another --name, or `rundiff reset s`|Use --name"):
        world.run(rows(1), destination=f"sqlite:///{world.folder / 'other.db'}")
    assert not (world.folder / "other.db").exists()
    assert world.run(rows(1, 2, 3)).counts.unchanged == 3


def test_a_delivery_whose_log_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from rundiff.destinations.sql import SqlDestination

    world.run(rows(1, 2, 3))
    with monkeypatch.context() as patched:
        patched.setattr(SqlDestination, "deliver", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run(rows(1, 2, 4))
    [log] = world.home.glob("syncs/*/log/00000002")
    shutil.rmtree(log)
    with pytest.raises(StorageError, match="is missing; restore it from a backup"):
        world.run(rows(1, 2, 4))
    result = world.run(rows(1, 2, 4), full_refresh=True)
    assert (result.counts.updated, result.counts.created, result.counts.deleted) == (2, 1, 1)
    assert world.table() == {1: "a", 2: "a", 4: "a"}


@pytest.mark.parametrize("policy", ["rebaseline", "resend"])
def test_a_delivery_is_finished_though_the_baseline_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    from rundiff.destinations.sql import SqlDestination

    world.run(rows(1, 2, 3))
    with monkeypatch.context() as patched:
        patched.setattr(SqlDestination, "deliver", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run(rows(2, 3, 4))
    lose_signatures(world)
    with pytest.raises(BaselineLost, match="rundiff rebuild s"):
        world.run(rows(2, 3, 4))
    assert sorted(world.table()) == [1, 2, 3]
    assert world.run(rows(2, 3, 4), on_lost_baseline=policy).status == "committed"
    assert sorted(world.table()) == [2, 3, 4]


def test_rollback_to_a_run_whose_baseline_is_gone(world: World) -> None:
    world.run(rows(1, 2))
    world.keep("d.db")
    world.run(rows(1, 2, 3))
    world.restore("d.db")
    for path in world.signatures():
        if path.name.startswith("manifest-00000001"):
            path.unlink()
    with world.workspace() as workspace:
        with pytest.raises(BaselineLost, match=r"manifest-00000001-.* is missing"):
            workspace.rollback("s", 1)
        with pytest.raises(StateChanged, match="has no committed run 9"):
            workspace.rollback("s", 9)


def test_an_incomplete_run_under_a_lost_baseline_with_a_held_set(world: World) -> None:
    world.run(rows(1, 2, 3, 4))
    world.run(rows(1), max_deletes=1)
    lose_signatures(world)
    result = world.run(rows(1), on_lost_baseline="resend", expected_rows=5)
    assert (result.status, result.complete) == ("committed", False)
    assert sorted(world.table()) == [1, 2, 3, 4]
