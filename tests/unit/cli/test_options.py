"""The table of options: keys, keywords and flags can't drift apart."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import pytest

from rundiff.cli.flags import HELP
from rundiff.cli.running import plan_command, sync_command
from rundiff.errors import ConfigurationError
from rundiff.options import CONFLICT_RULES, DURATIONS, OPTIONS, Kind, convert, fill, nearest
from rundiff.project import FILE_OPTIONS, ad_hoc
from rundiff.settings import Comparison, Guards, Policies, Scoping, SourceOptions, SyncSettings

STRUCTS = {
    "reading": SourceOptions,
    "comparison": Comparison,
    "scoping": Scoping,
    "guards": Guards,
    "policies": Policies,
}
GOOD: dict[Kind, Any] = {
    Kind.SWITCH: True,
    Kind.WHOLE: 7,
    Kind.NUMBER: 2.5,
    Kind.TEXT: "x",
    Kind.LIST: ["a", "b"],
    Kind.MAPPING: {"a": "text"},
    Kind.RULE: "max:day",
    Kind.FUNCTION: "{id}",
}
NAMES = sorted(OPTIONS)


def good(name: str) -> Any:
    option = OPTIONS[name]
    if name in DURATIONS:
        return "36h"
    if name == "normalize":
        return {"a": "trim"}
    if name == "partition_guards":
        return {"max_deletes": "3"}
    return option.choices[-1] if option.kind is Kind.CHOICE else GOOD[option.kind]


def flags(command: Any) -> dict[str, Any]:
    return {flag: param for param in command.params for flag in param.opts}


def test_every_field_of_the_structs_is_an_option() -> None:
    fields = {
        (group, field.name) for group, struct in STRUCTS.items() for field in msgspec.structs.fields(struct)
    }
    assert fields <= {(option.group, option.name) for option in OPTIONS.values()}
    rest = {option.name for option in OPTIONS.values()} - {name for _, name in fields}
    assert rest >= {"shared_table", "full_refresh", "batch_size", "wait"}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_a_flag_with_a_sentence(name: str) -> None:
    for command in (sync_command, plan_command):
        param = flags(command)["--" + name.replace("_", "-")]
        assert param.name == name
        assert param.help
        assert param.help == HELP[name]


def test_no_sentence_is_left_over() -> None:
    assert set(HELP) == set(OPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_a_keyword_that_lands_in_its_place(name: str) -> None:
    settings = ad_hoc("people.csv", "id", "out.jsonl", options={name: good(name)})
    group = OPTIONS[name].group
    holder = getattr(settings, group) if group else settings
    expected = tuple(good(name)) if OPTIONS[name].kind is Kind.LIST else good(name)
    assert getattr(holder, name) == expected


def test_only_full_refresh_is_no_key_of_the_file() -> None:
    assert set(OPTIONS) - set(FILE_OPTIONS) == {"full_refresh"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_deletes", "3", "`max_deletes` must be a whole number; it is text."),
        ("max_deletes", True, "`max_deletes` must be a whole number; it is true or false."),
        ("max_deletes", -1, "`max_deletes` must be a number from 0 on."),
        ("max_delete_percent", float("nan"), "`max_delete_percent` must be a number from 0 on."),
        ("allow_empty", 1, "`allow_empty` must be true or false; it is a whole number."),
        (
            "on_invalid_key",
            "skp",
            "`on_invalid_key` must be one of skip, quarantine, fail; it is another text.",
        ),
        ("exclude", [1], "`exclude` must be a list of texts; it is something else."),
        ("types", "id=text", "`types` must be a table of field = text; it is text."),
        ("types", {"id": 3}, "`types` must be a table of field = text; it is a table."),
        ("delimiter", 1.5, "`delimiter` must be text; it is a number."),
        ("batch_size", 0, "`batch_size` must be 1 or more."),
        (
            "on_conflict",
            "max:",
            "`on_conflict` must be one of " + ", ".join(CONFLICT_RULES) + ", or a Python function.",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_but_not_repeated(name: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert(OPTIONS[name], value, f"`{name}`")
    assert str(caught.value) == says


@pytest.mark.parametrize("rule", ["last", "first", "fail", "quarantine", "max:day", "min:a:b"])
def test_rules_of_conflicts(rule: str) -> None:
    assert convert(OPTIONS["on_conflict"], rule, "x") == rule


@pytest.mark.parametrize("rule", ["max", "biggest", "", 3, None, "last:day", "MAX:day"])
def test_what_is_no_rule_of_conflicts(rule: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be one of last, first"):
        convert(OPTIONS["on_conflict"], rule, "x")


def test_a_python_function_decides_conflicts() -> None:
    settings = ad_hoc([], "id", options={"on_conflict": min})
    assert settings.policies.on_conflict is min


def test_text_of_the_environment_may_be_a_number() -> None:
    assert convert(OPTIONS["expected_rows"], "12", "x", strict=False) == 12
    assert convert(OPTIONS["allow_empty"], "true", "x", strict=False) is True


def test_fill_changes_only_what_is_given() -> None:
    start = SyncSettings(name="a", source="a.csv", primary_key=("id",))
    filled = fill(start, {"max_deletes": 3, "wait": True})
    assert (filled.guards.max_deletes, filled.wait) == (3, True)
    assert filled.policies == start.policies
    assert filled.guards.max_delete_percent is None


def test_the_nearest_word() -> None:
    assert nearest("on_conflit", OPTIONS) == "did you mean on_conflict?"
    assert nearest("zzz", ["b", "a"]) == "known are: a, b"
    assert nearest("zzz", []) == "there are none"


@pytest.mark.parametrize("text", ["", "7", "d7", "7 days", "-1d", "99999w"])
def test_a_duration_has_a_unit(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like"):
        ad_hoc("people.csv", "id", "out.jsonl", options={"full_every": text})


def test_partitions_are_gathered_from_the_command() -> None:
    param = flags(sync_command)["--partition"]
    context = click.Context(sync_command)
    values = param.callback(context, param, ["region=EU", "region=US,tier=1"])
    assert values == {"region": ["EU", "US"], "tier": ["1"]}
