"""rundiff.toml, the environment and keywords become settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rundiff.errors import ConfigurationError
from rundiff.project import Project, ad_hoc, check_name, derived_name, load_project, storage
from rundiff.settings import DEFAULT_EXCLUDE, without_secrets

HERE = "[sync.people] of rundiff.toml"
SYNC = '[sync.people]\nsource = "people.csv"\nkey = "id"\nto = "sqlite:///crm.db"\n'


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def project(text: str, environ: Mapping[str, str] | None = None) -> Project:
    Path("rundiff.toml").write_text(text, encoding="utf-8")
    return load_project(None, environ or {})


def refusal(text: str, environ: Mapping[str, str] | None = None, sync: str = "people") -> str:
    with pytest.raises(ConfigurationError) as caught:
        project(text, environ).settings(sync)
    return str(caught.value)


def test_a_whole_file() -> None:
    loaded = project(
        """
        home = "state"
        retention = "36h"

        [defaults]
        max_deletes = 10
        on_conflict = "first"

        [sync.people]
        source = "data/people-*.csv.gz"
        key = ["id", "region"]
        to = "sqlite:///crm.db"
        into = "people"
        shared_table = true
        on_conflict = "max:day"
        types = { zip = "text" }
        exclude = "etl_*"
        max_delete_percent = 5

        [sync.orders]
        source = "orders.parquet"
        key = "id"
        to = "orders.jsonl"
        """
    )
    assert (loaded.home, loaded.retention_days, list(loaded.syncs)) == ("state", 1.5, ["people", "orders"])
    people, orders = loaded.settings("people"), loaded.settings("orders")
    assert people.named
    assert people.source == "data/people-*.csv.gz"
    assert people.primary_key == ("id", "region")
    assert (people.destination.url, people.destination.into) == ("sqlite:///crm.db", "people")
    assert people.destination.shared_table
    assert people.policies.on_conflict == "max:day"
    assert people.reading.types == {"zip": "text"}
    assert people.comparison.exclude == ("etl_*",)
    assert (people.guards.max_deletes, people.guards.max_delete_percent) == (10, 5.0)
    assert orders.policies.on_conflict == "first"
    assert orders.comparison.exclude == DEFAULT_EXCLUDE
    assert orders.primary_key == ("id",)


def test_overrides_win_over_the_file_and_the_file_over_defaults() -> None:
    loaded = project(f"[defaults]\nmax_deletes = 1\nmin_records = 1\n{SYNC}max_deletes = 2\n")
    assert loaded.settings("people").guards.max_deletes == 2
    settings = loaded.settings("people", {"max_deletes": 3, "full_refresh": True})
    assert (settings.guards.max_deletes, settings.guards.min_records, settings.full_refresh) == (3, 1, True)


def test_without_a_file_the_project_is_empty() -> None:
    loaded = load_project(None, {})
    assert (loaded.path, loaded.syncs) == (None, {})
    with pytest.raises(ConfigurationError, match=r"no rundiff\.toml here .* give --key and --to"):
        loaded.settings("people")


def test_a_path_is_no_name_of_a_sync() -> None:
    says = "rundiff.toml has no sync people.csv: give --key and --to to sync a file at once."
    assert refusal(SYNC, sync="people.csv") == says


def test_a_file_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(SYNC, encoding="utf-8")
    assert list(load_project(path, {}).syncs) == ["people"]
    with pytest.raises(ConfigurationError, match=r"gone\.toml can't be read: No such file"):
        load_project(tmp_path / "gone.toml", {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SYNC + "max_delets = 3\n", f"{HERE} has an unknown key `max_delets` (did you mean max_deletes?)."),
        ("hoem = 'x'\n" + SYNC, "rundiff.toml has an unknown key `hoem` (did you mean home?)."),
        ("[syncs.people]\nkey = 'id'\n", "rundiff.toml has an unknown key `syncs` (did you mean sync?)."),
        (SYNC + "primary_key = 'id'\n", f"{HERE} has an unknown key `primary_key` (did you mean key?)."),
        (SYNC + "destination = 'x'\n", f"{HERE} has an unknown key `destination` (did you mean to?)."),
        (
            "[defaults]\nonconflict = 'last'\n",
            "[defaults] of rundiff.toml has an unknown key `onconflict` (did you mean on_conflict?).",
        ),
        (
            "[sync]\nsource = 'x'\n",
            "`source` stands in [sync] of rundiff.toml, which holds only tables: write [sync.NAME].",
        ),
        ("sync = 3\n", "`sync` of rundiff.toml must be a table: write [sync.NAME]."),
        ("defaults = 3\n", "`defaults` of rundiff.toml must be a table: write [defaults]."),
        ("home = 3\n", "`home` of rundiff.toml must be text."),
        ("retention = '7 days'\n", '`retention` of rundiff.toml must look like "12h", "7d" or "2w".'),
        ("retention = 7\n", "`retention` of rundiff.toml must be text."),
        (SYNC.replace('key = "id"\n', ""), f"{HERE} needs `key`."),
        (SYNC.replace('source = "people.csv"\n', ""), f"{HERE} needs `source`."),
        ("[sync.people]\nsource = 'x'\nkey = 'id'\n", f"{HERE} needs `to`."),
        (SYNC.replace('"id"', "[]"), f"`key` in {HERE} must name one field or several different ones."),
        (
            SYNC.replace('"id"', '["id", "id"]'),
            f"`key` in {HERE} must name one field or several different ones.",
        ),
        (SYNC.replace('"id"', "3"), f"`key` in {HERE} must be a field name or a list of field names."),
        (SYNC.replace('"people.csv"', "['a', 'b']"), f"`source` in {HERE} must be text."),
        (SYNC + "max_deletes = '3'\n", f"`max_deletes` in {HERE} must be a whole number; it is text."),
        (SYNC + "full_refresh = true\n", None),
        (
            "[sync.'-x']\nsource = 'x'\n",
            "The name of a sync must be 1 to 200 printable characters and not begin with a dash.",
        ),
        (SYNC.replace("people]", "poeple]"), "rundiff.toml has no sync people (did you mean poeple?)."),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str | None) -> None:
    told = refusal(text)
    assert told == says if says else "has an unknown key `full_refresh`" in told


def test_broken_toml_names_the_place() -> None:
    assert "rundiff.toml is not valid TOML" in refusal("[sync.people\n")
    assert "line 1" in refusal("[sync.people\n")
    Path("rundiff.toml").write_bytes(b'home = "\xff"\n')
    with pytest.raises(ConfigurationError, match=r"rundiff\.toml is not UTF-8 text"):
        load_project(None, {})


def test_variables_of_the_environment() -> None:
    text = """
        home = "${BASE}/state"
        [sync.people]
        source = "${BASE}/$${x}/people.csv"
        key = ["${KEY}", "region"]
        to = "postgresql://me:${SECRET}@db/crm"
        types = { zip = "${KIND}" }
        null = ["${NOTHING}", "-"]
        expected_rows = "${ROWS}"
        """
    environ = {"BASE": "/data", "KEY": "id", "SECRET": "p$w${x}", "KIND": "text", "NOTHING": "", "ROWS": "12"}
    loaded = project(text, environ)
    settings = loaded.settings("people")
    assert loaded.home == "/data/state"
    assert settings.source == "/data/${x}/people.csv"
    assert settings.primary_key == ("id", "region")
    assert settings.destination.url == "postgresql://me:p$w${x}@db/crm"
    assert settings.reading.types == {"zip": "text"}
    assert settings.reading.null == ("", "-")
    assert settings.reading.expected_rows == 12
    assert loaded.destination_url("people") == settings.destination.url
    assert loaded.destination_url("orders") is None


def test_a_missing_variable_is_named_and_stops_only_its_sync() -> None:
    text = SYNC + '[sync.crm]\nsource = "a.csv"\nkey = "id"\nto = "${CRM_URL}"\n'
    assert project(text).settings("people").name == "people"
    says = "`to` in [sync.crm] of rundiff.toml needs the environment variable CRM_URL, which is not set."
    assert refusal(text, sync="crm") == says
    with pytest.raises(ConfigurationError, match="the environment variable CRM_URL"):
        project(text).destination_url("crm")


@pytest.mark.parametrize("broken", ["${", "${}", "${1X}", "${A-B}", "${A:-b}"])
def test_what_names_no_variable(broken: str) -> None:
    says = refusal(SYNC.replace("people.csv", broken), {"A": "x"})
    assert says.startswith(
        "`source` in [sync.people] of rundiff.toml has a ${…} that names no environment variable"
    )


def test_values_of_the_environment_are_in_no_message() -> None:
    text = SYNC + 'on_conflict = "${SECRET}"\n'
    assert "hunter2" not in refusal(text, {"SECRET": "hunter2"})
    assert "hunter2" not in refusal(SYNC + 'on_existing = "${SECRET}"\n', {"SECRET": "hunter2"})
    assert "hunter2" not in refusal(SYNC + 'max_deletes = "${SECRET}"\n', {"SECRET": "hunter2"})
    assert "hunter2" not in repr(project(text, {"SECRET": "hunter2"}))


def test_values_of_the_environment_are_masked_wherever_they_turn_up() -> None:
    loaded = project(
        SYNC.replace("crm.db", "${SECRET}@${HOST}${X}"), {"SECRET": "p%40ss", "HOST": "db1", "X": "e"}
    )
    told = loaded.masked("can't log in at db1 with p@ss or p%40ss: refused")
    assert told == "can't log in at ${HOST} with ${SECRET} or ${SECRET}: refused"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/people.csv.gz", "people"),
        (Path("people.csv"), "people"),
        ("people", "people"),
        (".people.csv", "people"),
        ("data/people-*.csv", "people"),
        ("data/people_2026-??.csv", "people_2026"),
        ("data/people/*.parquet", "people"),
        ("*.csv", "rows"),
        ("./[ab].csv", "rows"),
        ("-", "stdin"),
        ([{"id": 1}], "rows"),
        (iter([]), "rows"),
        ("postgresql://me:secret@db/crm?password=x", "crm"),
        ("postgresql://me:secret@db", "rows"),
    ],
)
def test_a_sync_is_named_after_its_source(source: Any, name: str) -> None:
    settings = ad_hoc(source, "id")
    assert (derived_name(source), settings.name, settings.named) == (name, name, False)


def test_a_sync_at_once() -> None:
    settings = ad_hoc("p.csv", ["id", "region"], "-", None, "crm", {"include": ["a"], "wait": True})
    assert (settings.name, settings.named, settings.primary_key) == ("crm", True, ("id", "region"))
    assert (settings.destination.url, settings.comparison.include, settings.wait) == ("-", ("a",), True)


def test_an_unknown_keyword_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ad_hoc("p.csv", "id", options={"on_confict": "last"})
    assert str(caught.value) == "There is no option `on_confict` (did you mean on_conflict?)."


@pytest.mark.parametrize("name", ["", " ", "-x", "a\nb", "a\x1b[31m", "x" * 201])
def test_names_that_would_spoil_the_output(name: str) -> None:
    with pytest.raises(ConfigurationError, match="The name of a sync"):
        check_name(name)


@pytest.mark.parametrize("key", ["", [], [""], ["id", "id"], 3, [1]])
def test_keys_that_are_none(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="The primary key must"):
        ad_hoc("p.csv", key)


def test_where_the_state_is_kept() -> None:
    empty, with_home = Project(), Project(home="of-the-file", retention_days=2)
    assert storage(None, {}, empty).home == ".rundiff"
    assert storage(None, {}, with_home).home == "of-the-file"
    assert storage(None, {"RUNDIFF_HOME": "env"}, with_home).home == "env"
    assert storage("flag", {"RUNDIFF_HOME": "env"}, with_home).home == "flag"
    assert storage(None, {}, with_home).retention_days == 2
    assert storage(None, {}, empty).signing_key is None


def test_the_signing_key_comes_from_the_environment_only() -> None:
    key = "0123456789abcdef" * 2
    kept = storage(None, {"RUNDIFF_SIGNING_KEY": key}, Project())
    assert kept.signing_key == key.encode()
    with pytest.raises(ConfigurationError) as caught:
        storage(None, {"RUNDIFF_SIGNING_KEY": "short"}, Project())
    assert "short" not in str(caught.value).replace("shorter", "")


def test_where_database_and_signatures_are_kept() -> None:
    in_file = Project(database="postgresql://file", signatures="redis://file")
    environ = {"RUNDIFF_DATABASE": "postgresql://env", "RUNDIFF_SIGNATURES": "redis://env"}
    kept = storage(None, {}, Project())
    assert (kept.database, kept.signatures) == (None, None)
    kept = storage(None, {}, in_file)
    assert (kept.database, kept.signatures) == ("postgresql://file", "redis://file")
    kept = storage(None, environ, in_file)
    assert (kept.database, kept.signatures) == ("postgresql://env", "redis://env")
    kept = storage(None, environ, in_file, database="postgresql://flag", signatures="redis://flag")
    assert (kept.database, kept.signatures) == ("postgresql://flag", "redis://flag")
    assert "flag" not in repr(kept)


@pytest.mark.parametrize(
    ("environ", "project", "named"),
    [
        ({"RUNDIFF_DATABASE": "me:hunter2@db"}, Project(), "RUNDIFF_DATABASE"),
        ({"RUNDIFF_SIGNATURES": "me:hunter2@db"}, Project(), "RUNDIFF_SIGNATURES"),
        ({}, Project(database="me:hunter2@db"), "`database` of rundiff.toml"),
        ({}, Project(signatures="me:hunter2@db"), "`signatures` of rundiff.toml"),
    ],
)
def test_places_that_are_no_urls_are_refused(environ: dict[str, str], project: Project, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        storage(None, environ, project)
    assert str(caught.value).startswith(f"{named} must be a URL such as ")
    assert "hunter2" not in str(caught.value)


def test_secrets_of_servers_come_from_the_environment_and_appear_in_no_message() -> None:
    text = 'signatures = "redis://:${SECRET}@cache/0"\n' + SYNC
    loaded = project(text, {"SECRET": "hunter2"})
    assert loaded.signatures == "redis://:hunter2@cache/0"
    assert loaded.masked("redis://:hunter2@cache/0 is gone") == "redis://:${SECRET}@cache/0 is gone"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:hunter2@cache:6379/0?password=hunter2", "redis://cache:6379/0"),
        ("rediss://me:hunter2@cache", "rediss://me@cache"),
        ("redis://me:hun/ter@2@cache/1", "redis://me@cache/1"),
        ("unix://:hunter2@/run/redis.sock", "unix:///run/redis.sock"),
        ("postgresql://me:hunter2@a,b:5432/name?sslpassword=hunter2", "postgresql://me@a,b:5432/name"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_the_home_directory_may_be_named_as_database() -> None:
    kept = storage("state", {"RUNDIFF_DATABASE": "state"}, Project(signatures="./state"))
    assert (kept.home, kept.database, kept.signatures) == ("state", None, None)
