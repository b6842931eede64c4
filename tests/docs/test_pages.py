"""Every block of code in the README and the docs runs, and shows what it really prints."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rundiff.project import load_project
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, masked

END = "\x1e"
ELSEWHERE = {"commands.md", "project-file.md"}
"""Pages whose commands stand in plain blocks; tests/unit/cli/test_docs.py checks that each parses."""
SHOWN = {"", "text"}
RUN = {"console", "bash", "python", "toml", "json", "sql"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with the demo's data, and an environment as a newcomer has it."""
    place = tmp_path / "page"
    shutil.copytree(ROOT / "demo" / "data", place / "demo" / "data")
    monkeypatch.chdir(place)
    monkeypatch.delenv("RUNDIFF_HOME")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.not_run is not None:
            continue
        try:
            _run(block, folder, names)
        except Exception as error:
            error.add_note(f"in {page.name}, line {block.line}")
            raise


def _run(block: Block, folder: Path, names: dict[str, Any]) -> None:
    if block.language == "console":
        _console(block, folder)
    elif block.language == "bash":
        printed, code = _shell(f"set -e\n{block.text}")
        assert code == 0, printed
    elif block.language == "python":
        _python(block, names)
    elif block.language == "toml":
        _toml(block, folder)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "sql":
        assert duckdb.extract_statements(block.text)
    else:
        assert block.language in SHOWN, f"nothing runs blocks of {block.language}"


def _toml(block: Block, folder: Path) -> None:
    if "sync" not in tomllib.loads(block.text):
        return  # a piece of a pyproject.toml
    path = folder / "checked.toml"
    path.write_text(block.text, encoding="utf-8")
    project = load_project(path, {"CRM_URL": "sqlite:///crm.db", "CRM_TOKEN": "a token"})
    assert [project.settings(name).name for name in project.syncs]


def _shell(script: str) -> tuple[str, int]:
    done = subprocess.run(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.returncode


def _console(block: Block, folder: Path) -> None:
    # One shell for the block, so that variables and `cd` hold on; each command tells its exit code.
    written = commands(block)
    script = "\n".join(f"{command.text}\nprintf '{END}%s{END}' $?" for command in written)
    printed, _ = _shell(script)
    results = printed.split(END)
    for index, command in enumerate(written):
        output, code = results[2 * index], int(results[2 * index + 1])
        assert code == command.code, f"`{command.text}` exited with {code}:\n{output}"
        assert masked(output, folder) == masked(command.output, folder), (
            f"`{command.text}` printed:\n{output}"
        )


def _python(block: Block, names: dict[str, Any]) -> None:
    lines = block.text.splitlines()
    for statement in ast.parse(block.text).body:
        expected = _comments_below(lines, statement.end_lineno or 0)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if isinstance(statement, ast.Expr):
                code = compile(ast.Expression(statement.value), "<page>", "eval")
                value = eval(code, names)  # noqa: S307 -- our own pages
            else:
                value = None
                exec(compile(ast.Module([statement], []), "<page>", "exec"), names)  # noqa: S102 -- our own pages
        if expected is not None:
            shown = printed.getvalue() + ("" if value is None else repr(value))
            assert shown.strip() == expected, f"`{ast.unparse(statement)}` gives:\n{shown}"


def _comments_below(lines: list[str], end: int) -> str | None:
    found = []
    for line in lines[end:]:
        if not line.startswith("# "):
            break
        found.append(line[2:])
    return "\n".join(found).strip() or None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_hides_in_a_block_that_is_not_run(page: Path) -> None:
    for block in blocks(page):
        assert block.language in SHOWN | RUN, f"line {block.line}: nothing runs blocks of {block.language}"
        if block.language in SHOWN and page.name not in ELSEWHERE:
            assert not re.search(r"^(\$ |rundiff |import )", block.text, re.MULTILINE), f"line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in _anchors(linked), f"{target}: there is no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "index.md":
            assert f"({page.relative_to(ROOT / 'docs')})" in index, f"docs/index.md lacks {page.name}"


def test_comments_below_compound_statements_are_checked_too(folder: Path) -> None:
    block = Block("python", "for n in (1, 2):\n    print(n)\n# 1\n# 3", 1, None)
    with pytest.raises(AssertionError, match="gives"):
        _python(block, {})


def test_a_wrong_output_of_a_command_is_found(folder: Path) -> None:
    _console(Block("console", "$ echo one\none\n$ false  # exit 1", 1, None), folder)
    with pytest.raises(AssertionError, match="printed"):
        _console(Block("console", "$ echo one\ntwo", 1, None), folder)
    with pytest.raises(AssertionError, match="exited with 1"):
        _console(Block("console", "$ false", 1, None), folder)
