"""Runs under two rules: the comparison or the signing key changed, and only real changes are written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.sqlitefiles import opened

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

FIRST, SECOND = "0123456789abcdef-first", "0123456789abcdef-second"
Row = dict[str, Any]


@dataclasses.dataclass
class World:
    """One sync into SQLite."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, rows: list[Row], **options: Any) -> rundiff.Run:
        options = {"max_delete_percent": 100, **options}
        return rundiff.sync(
            rows,
            primary_key="id",
            name="s",
            destination=f"sqlite:///{self.folder / 'd.db'}",
            into="t",
            home=self.folder / "home",
            **options,
        )

    def counts(self, rows: list[Row], **options: Any) -> tuple[int, int, int, int]:
        """Created, updated, deleted, unchanged."""
        counts = self.run(rows, **options).counts
        return counts.created, counts.updated, counts.deleted, counts.unchanged

    def key(self, key: str | None, former: str | None = None) -> None:
        for name, value in (("RUNDIFF_SIGNING_KEY", key), ("RUNDIFF_SIGNING_KEY_FORMER", former)):
            if value is None:
                self.monkeypatch.delenv(name, raising=False)
            else:
                self.monkeypatch.setenv(name, value)

    def workspace(self, key: str | None = None) -> Workspace:
        return Workspace(Storage(home=str(self.folder / "home"), signing_key=key.encode() if key else None))

    @property
    def held(self) -> list[Row]:
        with opened(self.folder / "d.db") as connection:
            cursor = connection.execute("SELECT * FROM t ORDER BY id")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def rows_of(count: int = 6, **values: Any) -> list[Row]:
    return [{"id": n, "v": f"v{n}", "noisy": n, **values} for n in range(count)]


def test_only_real_changes_are_written_when_a_field_is_excluded(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    rows[3]["v"] = "changed"
    result = world.run(rows, exclude=["noisy"])
    assert (result.counts.updated, result.counts.unchanged) == (1, 5)
    assert "the compared fields (noisy): other than at run 1" in result.warnings[0]
    again = world.run(rows, exclude=["noisy"])
    assert (again.counts.unchanged, again.warnings) == (6, ())


def test_what_the_new_rule_ignores_is_no_change_though_the_old_one_saw_it(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    noise = [{**row, "noisy": 100} for row in rows]
    assert world.counts(noise, exclude=["noisy"]) == (0, 0, 0, 6)
    noise[0]["v"] = "changed"
    assert world.counts(noise, exclude=["noisy"]) == (0, 1, 0, 5)
    assert [row["noisy"] for row in world.held] == [100, 1, 2, 3, 4, 5]


def test_a_field_that_is_compared_again_is_not_sent_for_its_own_sake(world: World) -> None:
    rows = rows_of()
    world.run(rows, exclude=["noisy"])
    rows = [{**row, "noisy": 7} for row in rows]
    assert world.counts(rows) == (0, 0, 0, 6)
    rows[2]["noisy"] = 8
    assert world.counts(rows) == (0, 1, 0, 5)


def test_a_full_refresh_under_two_rules_sends_everything(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    assert world.counts(rows[:-1], exclude=["noisy"], full_refresh=True) == (0, 5, 1, 0)
    assert world.counts(rows[:-1], exclude=["noisy"]) == (0, 0, 0, 5)


def test_partial_runs_go_on_under_the_former_rule(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    noise = [{**row, "noisy": 100} for row in rows]
    part = world.run(noise[:1], exclude=["noisy"], scope="incremental")
    assert part.counts.updated == 1
    assert "goes on under the former rule" in part.warnings[0]
    assert world.counts(noise, exclude=["noisy"]) == (0, 0, 0, 6)


def test_held_deletions_survive_a_new_rule_and_are_approved_under_it(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    held = world.run(rows[:3], exclude=["noisy"], max_deletes=1)
    assert held.counts.deletes_held == 3
    with world.workspace() as workspace:
        assert workspace.approve("s").counts.deleted == 3
    assert world.counts(rows[:3], exclude=["noisy"]) == (0, 0, 0, 3)


def test_a_key_that_comes_back_after_grace_is_judged_by_what_was_written(world: World) -> None:
    rows = rows_of()
    options = {"delete_after_misses": 3}
    world.run(rows, **options)
    world.run(rows[:-2], exclude=["noisy"], **options)
    rows[-1]["v"] = "changed"
    rows[-2]["noisy"] = 100
    assert world.counts(rows, exclude=["noisy"], **options) == (0, 1, 0, 5)


def test_a_held_run_takes_the_new_rule_with_it(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    rows[0]["v"] = "changed"
    held = world.run(rows, exclude=["noisy"], max_updates_percent=10)
    assert held.status == "held"
    with world.workspace() as workspace:
        assert workspace.approve("s").counts.updated == 1
    assert world.counts(rows, exclude=["noisy"]) == (0, 0, 0, 6)


def test_a_record_that_was_never_written_by_rundiff_is_written_when_it_comes_back(world: World) -> None:
    rows = rows_of(3)
    world.run(rows)
    for path in (world.folder / "home" / "signatures").glob("*/base-*"):
        path.unlink()
    world.run(rows, on_lost_baseline="rebaseline")
    result = world.run(rows[:2], exclude=["noisy"], delete_after_misses=2)
    assert "1 record that was not read or differs is in no write log" in " ".join(result.warnings)
    assert world.counts(rows, exclude=["noisy"], delete_after_misses=2) == (0, 1, 0, 2)


@pytest.mark.parametrize(("before", "after"), [(FIRST, SECOND), (None, FIRST), (FIRST, None)])
def test_the_signing_key_is_rotated_without_sending_anything(
    world: World, before: str | None, after: str | None
) -> None:
    rows = rows_of()
    world.key(before)
    world.run(rows)
    world.key(after)
    with pytest.raises(rundiff.ConfigurationError, match="RUNDIFF_SIGNING_KEY_FORMER") as caught:
        world.run(rows)
    assert not any(secret in str(caught.value) for secret in (FIRST, SECOND))
    world.key(after, before or "")
    rows[1]["v"] = "changed"
    result = world.run(rows[:-1])
    assert (result.counts.updated, result.counts.deleted, result.counts.unchanged) == (1, 1, 4)
    assert "the signing key: other than at run 1" in result.warnings[0]
    world.key(after)
    rows[2]["v"] = "changed"
    assert world.counts(rows[:-2]) == (0, 1, 1, 3)
    with world.workspace(after) as workspace:
        entries = workspace.history("s", {"id": 2})
        assert [(entry.run, entry.change.changed_fields) for entry in entries] == [
            (1, None),
            (4, ("v",)),
        ]
        [gone] = [e for e in workspace.history("s", {"id": 4}) if e.change.action == "delete"]
        assert gone.change.before == {"id": 4, "v": "v4", "noisy": 4}
        assert workspace.rebuild("s") == 4
    assert world.counts(rows[:-2]) == (0, 0, 0, 4)


def test_partial_runs_stay_under_the_former_key(world: World) -> None:
    rows = rows_of()
    world.key(FIRST)
    world.run(rows, partition_by=["noisy"], scope="full")
    world.key(SECOND, FIRST)
    rows[0]["v"] = "changed"
    part = world.run(rows[:1], partition_by=["noisy"])
    assert (part.counts.updated, part.counts.deleted) == (1, 0)
    assert world.counts(rows, partition_by=["noisy"], scope="full") == (0, 0, 0, 6)
    world.key(SECOND)
    assert world.counts([], partition_by=["noisy"], partitions=[2], allow_empty=True) == (0, 0, 1, 0)


def test_a_full_refresh_after_a_rotation_deletes_nothing_that_came_back(world: World) -> None:
    rows = rows_of(4)
    world.key(FIRST)
    world.run(rows)
    world.run(rows[1:])
    world.run(rows)
    world.key(SECOND, FIRST)
    assert world.counts(rows[:-1], full_refresh=True) == (0, 3, 1, 0)
    world.key(SECOND)
    assert world.counts(rows[:-1], full_refresh=True)[:2] == (0, 3)
    assert [row["id"] for row in world.held] == [0, 1, 2]


def test_new_fields_are_adopted(world: World) -> None:
    rows = rows_of(4)
    world.run(rows)
    wider = [{**row, "extra": row["id"] if row["id"] else None} for row in rows]
    wider[1]["v"] = "changed"
    part = world.run(wider[1:2], on_new_field="adopt", scope="incremental")
    assert "not compared until a full run adopts it" in part.warnings[-1]
    result = world.run(wider, on_new_field="adopt")
    assert (result.counts.updated, result.counts.unchanged) == (0, 4)
    wider[2]["extra"] = 9
    assert world.counts(wider, on_new_field="adopt") == (0, 1, 0, 3)
    assert [row["extra"] for row in world.held] == [None, 1, 9, None]


@pytest.mark.parametrize("scope", ["incremental", "partition"])
def test_a_new_field_that_a_run_of_a_part_met_first_is_still_new(world: World, scope: str) -> None:
    rows = rows_of(3)
    world.run(rows, partition_by=["v"])
    wider = [{**row, "extra": row["id"] + 1} for row in rows]
    for _ in range(2):
        part = world.run(wider[:2], on_new_field="adopt", scope=scope, partition_by=["v"])
        assert part.counts.updated == 0
        assert "new field: extra; not compared until a full run adopts it" in part.warnings[-1]
    with world.workspace() as workspace:
        assert workspace.verify("s").drifted == 0
    with pytest.raises(rundiff.PolicyViolation, match="new field extra"):
        world.run(wider, on_new_field="fail", partition_by=["v"])
    assert world.counts(wider, partition_by=["v"]) == (0, 3, 0, 0)
    assert [row["extra"] for row in world.held] == [1, 2, 3]
    assert world.counts(wider, partition_by=["v"]) == (0, 0, 0, 3)


def test_new_fields_are_updates_by_default_where_they_have_a_value(world: World) -> None:
    rows = rows_of(4)
    world.run(rows)
    wider = [{**row, "extra": row["id"] or None} for row in rows]
    assert world.counts(wider) == (0, 3, 0, 1)


def test_a_joined_run_refuses_another_rule_before_it_reads(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    options = {
        "destination": f"sqlite:///{world.folder / 'd.db'}",
        "into": "t",
        "home": world.folder / "home",
    }
    for more, why in (({"exclude": ["noisy"]}, "the compared fields"), ({"on_new_field": "adopt"}, "adopt")):
        with pytest.raises(rundiff.ConfigurationError, match=why) as caught:
            rundiff.Run.join(name="s", run="r1", primary_key="id", **options, **more)
        assert "several workers" in str(caught.value)


def test_a_normaliser_of_a_glob_is_refused(world: World) -> None:
    with pytest.raises(
        rundiff.ConfigurationError, match=r"names meta\.\*, but globs count in exclude and include"
    ):
        world.run(rows_of(1), normalize={"meta.*": "trim"})
    for name in ("v?", "[uv]", "noisy.[x]"):
        with pytest.raises(rundiff.ConfigurationError, match=r"is no field of the source, and globs count"):
            world.run(rows_of(2), normalize={name: "trim"})
    world.run([{"id": 1, "ok?": " x"}], normalize={"ok?": "trim"})
    assert world.counts([{"id": 1, "ok?": "x"}], normalize={"ok?": "trim"}) == (0, 0, 0, 1)


def test_a_dropped_field_is_told_from_an_excluded_one(world: World) -> None:
    world.run(rows_of(2), exclude=["noisy"])
    world.run([{"id": n, "noisy": 1} for n in range(2)], exclude=["noisy"], on_dropped_field="update")
    with world.workspace() as workspace:
        roles = {field.name: field.role for field in workspace.schema("s")}
    assert roles == {"id": "key", "v": "dropped", "noisy": "excluded"}


def test_a_normaliser_that_comes_or_goes_sends_nothing(world: World) -> None:
    rows = [{"id": n, "v": f"V{n}", "lat": n + 0.5} for n in range(4)]
    world.run(rows)
    # The precision of every coordinate changes in the very run that asks for it to be ignored.
    shifted = [{**row, "lat": row["lat"] + 1e-5} for row in rows]
    assert world.counts(shifted, normalize={"lat": "round(3)"}) == (0, 0, 0, 4)
    shifted[0]["v"] = "changed"
    assert world.counts(shifted, normalize={"lat": "round(3)", "v": "casefold"}) == (0, 1, 0, 3)
    assert world.counts(shifted) == (0, 0, 0, 4)


def test_a_change_is_not_lost_because_another_rule_signs_it_alike(world: World) -> None:
    rows = [{"id": 1, "v": "ABC"}, {"id": 2, "v": "x"}]
    options = {"normalize": {"v": "casefold"}, "delete_after_misses": 3}
    world.run(rows, **options)
    # Not read: the write log says that the destination holds ABC, which casefold signed as abc.
    world.run(rows[1:], delete_after_misses=3)
    assert world.counts([{"id": 1, "v": "abc"}, rows[1]], delete_after_misses=3) == (0, 1, 0, 1)


def test_a_plan_takes_the_new_rule_with_it(world: World) -> None:
    rows = rows_of()
    world.run(rows)
    rows[0]["v"] = "changed"
    sync = rundiff.Sync(
        rows,
        primary_key="id",
        name="s",
        destination=f"sqlite:///{world.folder / 'd.db'}",
        into="t",
        home=world.folder / "home",
        exclude=["noisy"],
    )
    path = world.folder / "plan"
    assert sync.plan(path).result.counts.updated == 1
    with world.workspace() as workspace:
        assert workspace.apply(path).counts.updated == 1
    assert world.counts(rows, exclude=["noisy"]) == (0, 0, 0, 6)


def csv(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_key_values_of_another_type_name_the_way_out(world: World, tmp_path: Path) -> None:
    source = csv(tmp_path / "s.csv", "id,v\n1,a\n2,b\n")
    options = {"primary_key": "id", "name": "s", "home": world.folder / "home"}
    rundiff.sync(source, destination=str(world.folder / "d.jsonl"), **options)
    csv(tmp_path / "s.csv", "id,v\nA1,a\n2,b\n")
    strange = rundiff.sync(source, destination=str(world.folder / "d.jsonl"), **options)
    assert (strange.counts.unreadable, strange.counts.deleted) == (1, 0)
    assert "values of id do not fit" in strange.warnings[0]
    assert strange.warnings[0].endswith("with --name, or this one anew with `rundiff reset s`")


def test_a_field_that_changed_its_type_is_accepted_and_only_real_changes_are_written(
    world: World, tmp_path: Path
) -> None:
    source = csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,20,b\n3,30,c\n")
    options = {"primary_key": "id", "name": "s", "home": world.folder / "home"}
    destination = str(world.folder / "d.jsonl")
    rundiff.sync(source, destination=destination, **options)
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n3,30,changed\n")
    strange = rundiff.sync(source, destination=destination, **options)
    assert (strange.counts.unreadable, strange.counts.updated, strange.complete) == (1, 1, False)
    assert strange.warnings[0].startswith("values of code do not fit the type of the last run; if the source")
    assert "`rundiff schema accept s`" in strange.warnings[0]
    with world.workspace() as workspace:
        assert workspace.accept_schema("s") == ("code",)
    result = rundiff.sync(source, destination=destination, **options)
    assert (result.counts.updated, result.counts.unchanged) == (1, 2)
    assert "the types of code" in result.warnings[0]
    again = rundiff.sync(source, destination=destination, **options)
    assert (again.counts.unchanged, again.warnings) == (3, ())
    with world.workspace() as workspace:
        assert {field.name: field.type for field in workspace.schema("s")}["code"] == "text"
        with pytest.raises(rundiff.ConfigurationError, match="nothing to accept"):
            workspace.accept_schema("s")
        with pytest.raises(rundiff.ConfigurationError, match="primary key"):
            workspace.accept_schema("s", ["id"])
        with pytest.raises(rundiff.ConfigurationError, match="no run has met a field nosuch") as caught:
            workspace.accept_schema("s", ["code", "nosuch"])
        assert str(caught.value).endswith("met: v, code")


def accept_text(world: World, tmp_path: Path, **options: Any) -> tuple[str, dict[str, Any], str]:
    """Make a field of numbers one of text, in a run that does not read record 3; gives what to run on with."""
    source = csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,20,b\n3,30,c\n4,2.5,d\n")
    common = {
        "primary_key": "id",
        "name": "s",
        "home": world.folder / "home",
        "delete_after_misses": 3,
        **options,
    }
    destination = str(world.folder / "d.jsonl")
    rundiff.sync(source, destination=destination, **common)
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n4,2.5,changed\n")
    rundiff.sync(source, destination=destination, **common)
    with world.workspace() as workspace:
        workspace.accept_schema("s", ["code"])
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n4,2.5,again\n")
    return source, common, destination


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": {"code": "casefold"}},
        {"field_signatures": True},
        {"partition_by": ["code"], "scope": "full"},
    ],
    ids=["plain", "normalised", "signed by field", "parted"],
)
def test_a_record_that_was_not_read_when_a_type_was_accepted_is_not_sent_later(
    world: World, tmp_path: Path, options: Row
) -> None:
    plain = {name: value for name, value in options.items() if name != "normalize"}
    source, common, destination = accept_text(world, tmp_path, **plain)
    result = rundiff.sync(source, destination=destination, **{**common, **options})
    assert (result.counts.updated, result.counts.unchanged, result.counts.deleted) == (2, 1, 0)
    assert not any("write log" in warning for warning in result.warnings)
    fields = [change["changed_fields"] for change in lines(destination)[-2:]]
    assert sorted(fields) == [["code"], ["v"]]
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n3,30,c\n4,2.5,again\n")
    back = rundiff.sync(source, destination=destination, **{**common, **options})
    assert (back.counts.updated, back.counts.unchanged, back.warnings) == (0, 4, ())


def lines(path: str) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_types_that_are_asked_for_are_a_change_of_types(world: World, tmp_path: Path) -> None:
    source = csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,20,b\n3,30,c\n")
    common = {"primary_key": "id", "name": "s", "home": world.folder / "home", "delete_after_misses": 2}
    common |= {"destination": str(world.folder / "d.jsonl")}
    rundiff.sync(source, **common)
    with pytest.raises(rundiff.PolicyViolation, match="schema accept s code") as caught:
        rundiff.sync(source, types={"code": "text"}, **common)
    assert caught.value.fields == ("code",)
    with pytest.raises(rundiff.PolicyViolation, match="field of the primary key"):
        rundiff.sync(source, types={"id": "text"}, on_retyped_field="update", **common)
    # A part is read and compared as before.
    update = {"types": {"code": "text"}, "on_retyped_field": "update"}
    part = rundiff.sync(source, scope="incremental", **update, **common)
    assert (part.counts.updated, part.counts.unchanged) == (0, 3)
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,020,b\n")
    result = rundiff.sync(source, **update, **common)
    assert (result.counts.updated, result.counts.unchanged) == (1, 1)
    assert "the types of code" in result.warnings[0]
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,020,b\n3,30,c\n")
    for options in ({}, {"types": {"code": "varchar"}}):
        again = rundiff.sync(source, **options, **common)
        assert (again.counts.updated, again.counts.unchanged, again.warnings) == (0, 3, ())


def test_booleans_of_json_become_text_and_text_becomes_booleans(world: World, tmp_path: Path) -> None:
    source = csv(
        tmp_path / "s.jsonl", '{"id": 1, "a": true, "b": "true"}\n{"id": 2, "a": false, "b": null}\n'
    )
    common = {"primary_key": "id", "name": "s", "home": world.folder / "home"}
    common |= {"destination": str(world.folder / "d.jsonl")}
    rundiff.sync(source, **common)
    types = {"a": "text", "b": "boolean"}
    result = rundiff.sync(source, types=types, on_retyped_field="update", **common)
    assert (result.counts.unreadable, result.counts.updated, result.counts.unchanged) == (0, 0, 2)
    with world.workspace() as workspace:
        assert {field.name: field.type for field in workspace.schema("s")} == {"id": "integer", **types}


def test_accepting_lets_other_types_be_asked_for(world: World, tmp_path: Path) -> None:
    source = csv(tmp_path / "s.csv", "id,code\n1,10\n2,20\n")
    common = {"primary_key": "id", "name": "s", "home": world.folder / "home"}
    common |= {"destination": str(world.folder / "d.jsonl"), "types": {"code": "text"}}
    rundiff.sync(source, **{**common, "types": {}})
    with pytest.raises(rundiff.PolicyViolation, match="pinned to integer"):
        rundiff.sync(source, **common)
    with world.workspace() as workspace:
        assert workspace.accept_schema("s") == ("code",)
    for _ in range(2):
        result = rundiff.sync(source, **common)
        assert (result.counts.updated, result.counts.unchanged) == (0, 2)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "rows", "sqlite", "duckdb"])
def test_types_that_stay_the_same_are_no_change(world: World, tmp_path: Path, kind: str) -> None:
    types = {
        "a": "numeric(10,2)",
        "b": "varchar",
        "c": "timestamp(3)",
        "d": "double",
        "e": "timestamptz",
        "f": "date",
    }
    row = {"id": 1, "a": "1.50", "b": "7", "c": "2024-05-01T10:00:00", "d": "1", "e": "2024-05-01T10:00:00Z"}
    row["f"] = "2024-05-01"
    source: Any = [row]
    options: dict[str, Any] = {"types": types}
    if kind == "csv":
        source = csv(tmp_path / "s.csv", ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    elif kind == "jsonl":
        source = csv(tmp_path / "s.jsonl", json.dumps(row) + "\n")
    elif kind != "rows":
        source, options["table"] = f"{kind}:///{tmp_path / 's.db'}", "s"
        create = (
            "CREATE TABLE s AS SELECT 1 AS id, '1.50' AS a, '7' AS b, '2024-05-01T10:00:00' AS c, '1' AS d, "
        )
        create += "'2024-05-01T10:00:00Z' AS e, '2024-05-01' AS f"
        if kind == "sqlite":
            with opened(tmp_path / "s.db") as connection:
                connection.execute(create)
        else:
            import duckdb

            with duckdb.connect(str(tmp_path / "s.db")) as connection:
                connection.execute(create)
    for expected in (1, 0, 0):
        assert world.run(source, **options).counts.created == expected


def test_another_rule_after_a_type_was_accepted_sends_nothing(world: World, tmp_path: Path) -> None:
    """Its records were not written since, so the log has them in their former type."""
    source, common, destination = accept_text(world, tmp_path)
    rundiff.sync(source, destination=destination, **common)
    result = rundiff.sync(source, destination=destination, **common, exclude=["v"])
    assert (result.counts.updated, result.counts.unchanged) == (0, 3)
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n3,30,c\n4,2.5,again\n")
    back = rundiff.sync(source, destination=destination, **common, exclude=["v"])
    assert (back.counts.updated, back.counts.unchanged) == (0, 4)


@pytest.mark.parametrize("singly", [False, True])
def test_a_rebuilt_baseline_is_signed_by_the_types_of_now(world: World, tmp_path: Path, singly: bool) -> None:
    source, common, destination = accept_text(world, tmp_path, field_signatures=singly)
    rundiff.sync(source, destination=destination, **common)
    with world.workspace() as workspace:
        workspace.rebuild("s")
    csv(tmp_path / "s.csv", "id,code,v\n1,10,a\n2,A7,b\n3,30,c\n4,2.5,again\n")
    back = rundiff.sync(source, destination=destination, **common)
    assert (back.counts.updated, back.counts.unchanged) == (0, 4)
    csv(tmp_path / "s.csv", "id,code,v\n1,10,A\n2,A7,B\n3,30,C\n4,2.5,D\n")
    rundiff.sync(source, destination=destination, **common)
    assert [change["changed_fields"] for change in lines(destination)[-4:]] == [["v"]] * 4


def test_a_deletion_stays_held_when_its_record_is_in_no_write_log(world: World) -> None:
    """Its entry becomes uncertain under the new rule; the held set still has its key."""
    rows = rows_of(6)
    world.run(rows)
    shutil.rmtree(next(iter((world.folder / "home" / "signatures").iterdir())))
    world.run(rows, on_lost_baseline="rebaseline")
    assert world.run(rows[:3], max_deletes=0).status == "held"
    with pytest.raises(rundiff.SourceError):
        world.run(broken(rows[:2]), exclude=["noisy"])
    result = world.run(rows[:2], exclude=["noisy"], expected_rows=99)
    assert (result.complete, result.counts.deleted) == (False, 0)
    with world.workspace() as workspace:
        held = workspace.show("s", None)[0].held
        assert held is not None and held.count == 3  # noqa: PT018


def broken(rows: list[Row]) -> Iterator[Row]:
    yield from rows
    raise rundiff.SourceError("it broke off")


def renamed_rows(count: int = 6) -> list[Row]:
    return [{"id": row["id"], "value": row["v"], "noisy": row["noisy"]} for row in rows_of(count)]


def accept_rename(world: World, key: str | None = None, **names: str) -> None:
    with world.workspace(key) as workspace:
        assert workspace.accept_schema("s", renamed=names) == tuple(names.values())


def test_a_renamed_field_sends_nothing_and_its_column_is_renamed(world: World) -> None:
    world.run(rows_of(), delete_after_misses=3)
    rows = renamed_rows()
    with pytest.raises(rundiff.PolicyViolation, match="no longer has the field v"):
        world.run(rows)
    accept_rename(world, v="value")
    rows[2]["value"] = "changed"
    with pytest.raises(rundiff.PolicyViolation, match="Make one full run first"):
        world.run(rows, scope="incremental")
    result = world.run(rows[:5], delete_after_misses=3)
    assert (result.counts.updated, result.counts.unchanged) == (1, 4)
    assert "the names of value (before: v): other than at run 1" in result.warnings[0]
    assert world.held == [*rows[:5], {"id": 5, "value": "v5", "noisy": 5}]
    assert list(world.held[0]) == ["id", "value", "noisy"]
    # The record that this run did not read, and those that it did.
    again = world.run(rows, delete_after_misses=3)
    assert (again.counts.updated, again.counts.unchanged, again.warnings) == (0, 6, ())
    with world.workspace() as workspace:
        assert [field.name for field in workspace.schema("s")] == ["id", "noisy", "value"]
        changes = workspace.history("s", {"id": 2})
    assert changes[-1].change.changed_fields == ("value",)


def test_logs_of_before_a_rename_are_read_by_the_names_of_now(world: World) -> None:
    """Another rule, a rebuild and a deletion go back to what runs before wrote."""
    world.run(rows_of())
    accept_rename(world, v="value")
    rows = renamed_rows()
    assert world.counts(rows) == (0, 0, 0, 6)
    # In the next rule, entries that are not read are signed by the log.
    assert world.counts(rows[:4], exclude=["noisy"], delete_after_misses=3) == (0, 0, 0, 4)
    assert world.counts(rows, exclude=["noisy"], delete_after_misses=3) == (0, 0, 0, 6)
    with world.workspace() as workspace:
        workspace.rebuild("s")
    assert world.counts(rows, exclude=["noisy"]) == (0, 0, 0, 6)
    rows[1]["value"] = "changed"
    assert world.counts(rows[:5], exclude=["noisy"]) == (0, 1, 1, 4)
    with world.workspace() as workspace:
        assert workspace.history("s", {"id": 1})[-1].change.changed_fields == ("value",)
    [deletes] = (world.folder / "home").glob("syncs/*/log/*/deletes.parquet")
    assert pq.read_table(deletes).column("data").to_pylist() == [{"id": 5, "value": "v5", "noisy": 5}]


@pytest.mark.parametrize(
    "options", [{}, {"field_signatures": True}, {"normalize": {"value": "casefold"}}, {"exclude": ["value"]}]
)
def test_a_rename_with_other_options(world: World, options: Row) -> None:
    plain = {name: {"v": "casefold"} if name == "normalize" else value for name, value in options.items()}
    plain = {name: ["v"] if name == "exclude" else value for name, value in plain.items()}
    world.run(rows_of(), **plain)
    accept_rename(world, v="value")
    assert world.counts(renamed_rows(), **options) == (0, 0, 0, 6)
    rows = renamed_rows()
    rows[1]["noisy"] = 99
    assert world.counts(rows, **options) == (0, 1, 0, 5)
    assert world.held[1] == rows[1]


def test_a_rename_in_a_rotation_of_the_key_and_to_another_type(world: World) -> None:
    world.key(FIRST)
    world.run(rows_of())
    with world.workspace(FIRST) as workspace:
        assert workspace.accept_schema("s", ["text"], {"noisy": "text"}) == ("text", "text")
    world.key(SECOND, FIRST)
    rows = [{"id": n, "v": f"v{n}", "text": str(n)} for n in range(6)]
    options = {
        "primary_key": "id",
        "name": "s",
        "destination": f"sqlite:///{world.folder / 'd.db'}",
        "into": "t",
        "home": world.folder / "home",
    }
    result = rundiff.sync(rows, **options)
    assert (result.counts.updated, result.counts.unchanged) == (0, 6)
    world.key(SECOND)
    assert rundiff.sync(rows, **options).counts.unchanged == 6


def test_what_was_refused_before_a_rename_is_tried_again_under_the_new_name(world: World) -> None:
    with opened(world.folder / "d.db") as connection:
        connection.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad'), noisy INTEGER)"
        )
    rows = rows_of()
    rows[3]["v"] = "bad"
    assert world.run(rows).counts.failed == 1
    accept_rename(world, v="value")
    fixed = renamed_rows()
    assert world.counts(fixed[:3] + fixed[4:], expected_rows=99) == (0, 0, 0, 5)
    with opened(world.folder / "d.db") as connection:
        connection.execute("ALTER TABLE t RENAME TO was")
        connection.execute("CREATE TABLE t AS SELECT * FROM was")
    with world.workspace() as workspace:
        assert workspace.retry("s").counts.written == 1
    assert world.held[3] == {"id": 3, "value": "bad", "noisy": 3}


def test_an_approval_repeats_no_rename_and_forgets_no_accepted_field(world: World) -> None:
    world.run(rows_of())
    accept_rename(world, v="value")
    assert world.run(renamed_rows(3), max_deletes=1).counts.deletes_held == 3
    fresh = [{**row, "v": "fresh"} for row in renamed_rows(3)]
    assert world.counts(fresh[:1], scope="incremental") == (0, 1, 0, 0)
    with world.workspace() as workspace:
        workspace.accept_schema("s", ["noisy"])
        assert workspace.approve("s").counts.deleted == 3
    without = [{name: value for name, value in row.items() if name != "noisy"} for row in fresh]
    assert world.counts(without) == (0, 3, 0, 0)
    assert world.held == [{**row, "noisy": None} for row in without]


def test_a_retry_forgets_no_accepted_field(world: World) -> None:
    with opened(world.folder / "d.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad'), noisy)")
    rows = rows_of()
    rows[3]["v"] = "bad"
    assert world.run(rows).counts.failed == 1
    with world.workspace() as workspace:
        workspace.accept_schema("s", ["noisy"])
        assert workspace.retry("s").counts.failed == 1
    assert world.run([{"id": row["id"], "v": row["v"]} for row in rows_of()]).counts.written == 6


def test_renames_that_can_not_be(world: World) -> None:
    world.run(rows_of())
    with world.workspace() as workspace:
        for names, why in (
            ({"nosuch": "x"}, "knows no field nosuch"),
            ({"v": "noisy"}, "noisy is a field by itself"),
            ({"v": "x", "noisy": "x"}, "x is a field by itself"),
            ({"id": "key"}, "field of the primary key"),
        ):
            with pytest.raises(rundiff.ConfigurationError, match=why):
                workspace.accept_schema("s", renamed=names)
    accept_rename(world, v="value")
    # The source is as it was: nothing is to do yet.
    assert world.counts(rows_of()) == (0, 0, 0, 6)
    both = [{**row, "value": row["v"]} for row in rows_of()]
    with pytest.raises(rundiff.PolicyViolation, match="has both v and value"):
        world.run(both)
    with opened(world.folder / "d.db") as connection:
        connection.execute("ALTER TABLE t ADD COLUMN value TEXT")
    with pytest.raises(rundiff.DestinationError, match="has both a column v and a column value"):
        world.run(renamed_rows())
    with world.workspace() as workspace:
        assert workspace.accept_schema("s", ["value"]) == ("value",)
    assert world.counts(both) == (0, 6, 0, 0)


def test_a_rename_that_the_source_has_not_made_can_be_accepted_again(world: World) -> None:
    world.run([{"id": 1, "b": "x"}])
    accept_rename(world, b="c")
    assert world.counts([{"id": 1, "b": "y"}]) == (0, 1, 0, 0)
    assert world.held == [{"id": 1, "b": "y"}]
    accept_rename(world, b="c")
    accept_rename(world, b="d")
    assert world.counts([{"id": 1, "b": "y"}]) == (0, 0, 0, 1)
    assert world.counts([{"id": 1, "d": "y"}]) == (0, 0, 0, 1)
    assert world.held == [{"id": 1, "d": "y"}]


def test_a_column_that_can_not_be_renamed_binds_nobody(world: World) -> None:
    world.run([{"id": 1, "b": "x"}])
    with opened(world.folder / "d.db") as connection:
        connection.execute(
            "CREATE VIEW broken AS SELECT b FROM nowhere"
        )  # SQLite renames no column beside it
    accept_rename(world, b="c")
    with pytest.raises(
        rundiff.DestinationError, match=r"b can't get the name c .* rename it yourself.*broken"
    ):
        world.run([{"id": 1, "c": "y"}])
    assert world.counts([{"id": 1, "b": "z"}]) == (0, 1, 0, 0)
    with opened(world.folder / "d.db") as connection:
        connection.execute("DROP VIEW broken")
    assert world.counts([{"id": 1, "c": "y"}]) == (0, 1, 0, 0)
    assert world.held == [{"id": 1, "c": "y"}]


def test_a_column_that_demands_a_value_gets_another_name(world: World) -> None:
    with opened(world.folder / "d.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT NOT NULL)")
    world.run([{"id": 1, "b": "x"}])
    accept_rename(world, b="c")
    assert world.counts([{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]) == (1, 0, 0, 1)
    assert world.held == [{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]


def test_a_name_that_a_mode_needs_is_refused_though_nothing_is_written(world: World) -> None:
    world.run([{"id": 1, "b": "x"}], mode="soft_delete")
    accept_rename(world, b="deleted_at")
    with pytest.raises(rundiff.ConfigurationError, match='keeps the column "deleted_at" for itself'):
        world.run([{"id": 1, "deleted_at": "x"}], mode="soft_delete")


def test_a_column_of_a_shared_table_is_not_renamed_under_another_sync(world: World) -> None:
    def run(name: str, rows: list[Row]) -> None:
        rundiff.sync(
            rows,
            primary_key="id",
            name=name,
            destination=f"sqlite:///{world.folder / 'd.db'}",
            into="t",
            shared_table=True,
            home=world.folder / "home",
        )

    for name, key in (("s", 1), ("other", 2)):
        run(name, [{"id": key, "b": "x"}])
    accept_rename(world, b="c")
    with pytest.raises(rundiff.DestinationError, match=r"1 other sync, .* rename the column yourself"):
        run("s", [{"id": 1, "c": "x"}])
    with world.workspace() as workspace:
        workspace.accept_schema("other", renamed={"b": "c"})
    with opened(world.folder / "d.db") as connection:
        connection.execute("ALTER TABLE t RENAME COLUMN b TO c")
    run("s", [{"id": 1, "c": "y"}])
    run("other", [{"id": 2, "c": "x"}])
    assert world.held == [{"id": 1, "c": "y"}, {"id": 2, "c": "x"}]


def test_a_rename_that_was_cut_off_goes_on(world: World) -> None:
    """The column was renamed, and the run was not committed."""
    world.run(rows_of())
    accept_rename(world, v="value")
    with opened(world.folder / "d.db") as connection:
        connection.execute("ALTER TABLE t RENAME COLUMN v TO value")
    rows = renamed_rows()
    rows[0]["value"] = "changed"
    assert world.counts(rows) == (0, 1, 0, 5)
    assert world.held == rows


def test_fields_that_a_policy_refused_are_accepted_once(world: World) -> None:
    rows = rows_of(3)
    world.run(rows)
    without = [{"id": row["id"], "v": row["v"]} for row in rows]
    with pytest.raises(rundiff.PolicyViolation, match="no longer has the field noisy") as caught:
        world.run(without)
    assert caught.value.fields == ("noisy",)
    assert "a table's column stays, and its values become null" in str(caught.value)
    with world.workspace() as workspace:
        assert workspace.accept_schema("s") == ("noisy",)
    # A run of a part changes nothing of that.
    assert world.counts(without[:1], scope="incremental") == (0, 1, 0, 0)
    result = world.run(without)
    assert (result.counts.updated, result.counts.unchanged) == (2, 1)
    assert not any("types" in warning for warning in result.warnings)
    wider = [{**row, "extra": 1} for row in without]
    with pytest.raises(rundiff.PolicyViolation, match="new field extra"):
        world.run(wider, on_new_field="fail")
    with world.workspace() as workspace:
        assert workspace.accept_schema("s") == ("extra",)
    assert world.counts(wider, on_new_field="fail") == (0, 3, 0, 0)
    assert world.counts(wider, on_new_field="fail") == (0, 0, 0, 3)


def test_a_key_that_moves_into_a_list_is_refused_before_anything_is_written(world: World) -> None:
    world.run(rows_of(3))
    moved = [{"items": [{"id": n}], "v": f"v{n}"} for n in range(3)]
    with pytest.raises(rundiff.KeyFieldMissing, match="no field id"):
        world.run(moved)
    lists = [{"id": [n], "v": f"v{n}", "noisy": n} for n in range(3)]
    with pytest.raises(rundiff.ConfigurationError, match="can't hold the field"):
        world.run(lists)
    assert world.counts(rows_of(3)) == (0, 0, 0, 3)


def test_lists_in_another_order_are_unchanged_once_the_order_is_ignored(world: World) -> None:
    rows = [{"id": n, "tags": ["a", "b", str(n)]} for n in range(3)]
    world.run(rows)
    turned = [{**row, "tags": row["tags"][::-1]} for row in rows]
    held = world.run(turned, max_updates_percent=50)
    assert held.status == "held"
    assert world.counts(turned, max_updates_percent=50, normalize={"tags": "unordered"}) == (0, 0, 0, 3)


def test_a_function_that_is_gone_leaves_the_write_log_to_tell_what_changed(world: World) -> None:
    def lower(array: Any) -> Any:
        import pyarrow.compute as pc

        return pc.utf8_lower(array)

    rows = [{"id": n, "v": f"V{n}"} for n in range(3)]
    world.run(rows, normalize={"v": lower})
    rows[0]["v"] = "changed"
    with pytest.raises(rundiff.ConfigurationError, match="until one full run"):
        world.run(rows, scope="incremental")
    assert world.counts(rows) == (0, 1, 0, 2)
    assert world.counts(rows) == (0, 0, 0, 3)


def test_a_field_that_stays_null_is_not_adopted_again_and_again(world: World) -> None:
    rows = rows_of(3, empty=None)
    for _ in range(2):
        assert world.run(rows, on_new_field="adopt").counts.updated == 0
    bases = sorted(path.name for path in (world.folder / "home" / "signatures").glob("*/base-*"))
    world.run(rows, on_new_field="adopt")
    assert bases == sorted(path.name for path in (world.folder / "home" / "signatures").glob("*/base-*"))


def test_a_rotation_on_shared_stores_keeps_history_and_rebuild(
    world: World, postgresql_url: str, valkey_url: str
) -> None:
    rows = rows_of()
    stores = {"database": postgresql_url, "signatures": valkey_url, "name": "rotated"}

    def run(rows: list[Row]) -> tuple[int, int, int]:
        counts = rundiff.sync(
            rows,
            primary_key="id",
            destination=str(world.folder / "d.jsonl"),
            home=world.folder / "home",
            max_delete_percent=100,
            **stores,
        ).counts
        return counts.updated, counts.deleted, counts.unchanged

    world.key(FIRST)
    run(rows)
    rows[2]["v"] = "changed"
    world.key(SECOND, FIRST)
    assert run(rows) == (1, 0, 5)
    world.key(SECOND)
    rows[2]["v"] = "again"
    assert run(rows[:-1]) == (1, 1, 4)
    storage = Storage(
        home=str(world.folder / "home"),
        database=postgresql_url,
        signatures=valkey_url,
        signing_key=SECOND.encode(),
    )
    with Workspace(storage) as workspace:
        entries = workspace.history("rotated", {"id": 2})
        assert [(entry.run, entry.change.changed_fields) for entry in entries] == [
            (1, None),
            (2, ("v",)),
            (3, ("v",)),
        ]
        [gone] = [e for e in workspace.history("rotated", {"id": 5}) if e.change.action == "delete"]
        assert gone.change.before == {"id": 5, "v": "v5", "noisy": 5}
        assert workspace.rebuild("rotated") == 5
    assert run(rows[:-1]) == (0, 0, 5)


def test_what_was_refused_is_tried_again_under_the_new_rule_and_key(world: World) -> None:
    refused, sent = {3}, []

    def destination(records: list[rundiff.SyncWriteRecord]) -> list[tuple[rundiff.SyncWriteRecord, str]]:
        sent.extend(record.primary_key["id"] for record in records)
        return [(record, "not today") for record in records if record.primary_key["id"] in refused]

    def run(rows: list[Row], **options: Any) -> tuple[int, int, int]:
        sync = rundiff.Sync(
            rows,
            primary_key="id",
            name="s",
            destination=destination,
            home=world.folder / "home",
            max_delete_percent=100,
            **options,
        )
        counts = sync.run().counts
        return counts.written, counts.failed, counts.unchanged

    rows = rows_of()
    refused.clear()
    run(rows)
    refused.add(3)
    rows[3]["v"] = rows[4]["v"] = "changed"
    assert run(rows) == (1, 1, 4)
    world.key(FIRST, "")
    assert run(rows, exclude=["noisy"]) == (0, 1, 5)
    world.key(FIRST)
    refused.clear()
    sent.clear()
    assert run(rows, exclude=["noisy"]) == (1, 0, 5)
    assert sent == [3]
    assert run(rows, exclude=["noisy"]) == (0, 0, 6)
