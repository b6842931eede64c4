"""The pages on the command and the project file name every command, flag and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from rundiff.cli.app import COMMANDS, app
from rundiff.options import OPTIONS, Kind
from rundiff.project import FLOW_KEYS, TOP_KEYS, load_project
from rundiff.settings import SyncSettings

DOCS = Path(__file__).parents[3] / "docs"
COMMANDS_PAGE = (DOCS / "commands.md").read_text(encoding="utf-8")
FILE_PAGE = (DOCS / "project-file.md").read_text(encoding="utf-8")


def command(name: str) -> click.Command:
    found = app.get_command(click.Context(app), name)
    assert found is not None
    return found


def section(name: str) -> str:
    found = re.search(rf"^### rundiff {name}\n(.*?)(?=^##|\Z)", COMMANDS_PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"commands.md lacks {name}"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    examples = re.findall(rf"^rundiff {name}\b(.*)$", section(name), re.MULTILINE)
    assert examples
    known = {flag for param in command(name).params for flag in (*param.opts, *param.secondary_opts)}
    assert {word for word in examples[0].split() if word.startswith("--")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_in_the_docs(name: str) -> None:
    # What all commands share stands at the top of the page; plan takes what sync takes.
    text = (
        section(name)
        + COMMANDS_PAGE.split("\n## ", 1)[0]
        + (section("sync") if name in ("plan", "adopt") else "")
    )
    if COMMANDS[name].section == "Look":
        text += COMMANDS_PAGE.split("\n## Look", 1)[1].split("###", 1)[0]
    for param in command(name).params:
        if isinstance(param, click.Option):
            for flag in (*param.opts, *param.secondary_opts):
                assert re.search(rf"{flag}\b", text), f"commands.md doesn't explain {flag} of {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_in_the_docs_is_made_up(name: str) -> None:
    known = {flag for param in command(name).params for flag in (*param.opts, *param.secondary_opts)}
    if name == "sync":
        known |= {"--key", "--no-"}
    for flag in re.findall(r"`(--[a-z-]+)", section(name)):
        assert flag in known


@pytest.mark.parametrize("key", [*TOP_KEYS, *FLOW_KEYS, *OPTIONS])
def test_every_key_is_in_the_docs(key: str) -> None:
    assert f"`{key}`" in FILE_PAGE


@pytest.mark.parametrize("name", OPTIONS)
def test_choices_and_defaults_are_as_in_the_docs(name: str) -> None:
    option = OPTIONS[name]
    row = next((line for line in FILE_PAGE.splitlines() if line.startswith(f"| `{name}` |")), None)
    if not option.in_file:
        assert row is None
        return
    assert row is not None
    for choice in option.choices:
        assert f"`{choice}`" in row
    settings = SyncSettings(name="x", source="x", primary_key=("id",))
    default: Any = getattr(getattr(settings, option.group) if option.group else settings, name)
    if default is None:
        # What is taken then depends on other options.
        assert option.kind is not Kind.CHOICE or "Default: " in row
    elif option.kind in (Kind.CHOICE, Kind.RULE):
        assert f"Default: `{default}`" in row
    elif option.kind is Kind.SWITCH:
        assert f"Default: {str(default).lower()}" in row
    elif name == "batch_size":
        assert f"Default: {default}" in row
    elif name == "exclude":
        assert all(f"`{glob}`" in row for glob in default)


def test_the_example_of_the_project_file_works(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", FILE_PAGE, re.DOTALL)
    assert example
    path = tmp_path / "rundiff.toml"
    path.write_text(example[1], encoding="utf-8")
    project = load_project(path, {"CRM_URL": "sqlite:///crm.db"})
    assert set(tomllib.loads(example[1])["sync"]) == {"customers", "orders"}
    assert project.settings("customers").guards.max_delete_percent == 5
    assert project.settings("orders").policies.on_conflict == "max:modified"
