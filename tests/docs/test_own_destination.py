"""The page on destinations of one's own: its package is put together, installed, used and tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import ROOT, blocks


def installed(folder: Path) -> dict[str, str]:
    """Write the package of the page and what `pip install` would write beside it; gives an environment with both."""
    code, suite = (b.text for b in blocks(ROOT / "docs/your-own-destination.md") if b.language == "python")
    [project] = (b.text for b in blocks(ROOT / "docs/your-own-destination.md") if b.language == "toml")
    (folder / "rundiff_spool.py").write_text(code, encoding="utf-8")
    (folder / "test_spool.py").write_text(suite, encoding="utf-8")
    told = tomllib.loads(project)["project"]
    beside = folder / f"{told['name'].replace('-', '_')}-{told['version']}.dist-info"
    beside.mkdir()
    (beside / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n"
    )
    [(group, entries)] = told["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (beside / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def test_the_command_of_the_page_delivers_to_the_destination_of_the_page(tmp_path: Path) -> None:
    environment = installed(tmp_path)
    [script] = (b.text for b in blocks(ROOT / "docs/your-own-destination.md") if b.language == "bash")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "spool").iterdir()
    changes = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((change["action"], change["data"]["name"]) for change in changes) == [
        ("create", "Ada"),
        ("create", "Grace"),
    ]


def test_the_destination_of_the_page_passes_the_suite(tmp_path: Path) -> None:
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:valkey",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [*pytest, "--rootdir", ".", "test_spool.py"],
        cwd=tmp_path, env=installed(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
