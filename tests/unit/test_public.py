"""The public names, the tree of errors as drawn, and imports that cost nothing until they are used."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import rundiff
from rundiff import errors

HEAVY = ("duckdb", "pyarrow", "numpy", "pandas", "polars", "rich", "sqlite3")
"""What must not be loaded before it is needed."""
DRAWING = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)  ", re.MULTILINE)


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; give the heavy modules that it left loaded."""
    script = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_public_names_are_exactly_all() -> None:
    assert sorted(rundiff.__all__) == rundiff.__all__
    for name in rundiff.__all__:
        getattr(rundiff, name)
    found = {
        name
        for name, value in vars(rundiff).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    # What `from __future__ import annotations` and the lazy loading need.
    assert found - {"annotations", "import_module", "TYPE_CHECKING", "Any"} == set(rundiff.__all__)


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(rundiff.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'snyc'"):
        rundiff.snyc  # type: ignore[attr-defined]  # noqa: B018 -- the access is the test


@pytest.mark.parametrize("name", rundiff.__all__)
def test_everything_public_has_a_docstring(name: str) -> None:
    # The `doc` of a struct or dataclass would be made up; these must be written.
    doc = getattr(rundiff, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}(")


def test_the_drawing_of_the_errors_is_true() -> None:
    """Each error stands in the drawing once, under its own base class."""
    drawn: dict[str, str | None] = {}
    above: list[str] = []
    for line in DRAWING.finditer(errors.__doc__ or ""):
        depth = len(line["indent"]) // 4
        above = [*above[:depth], line["name"]]
        assert line["name"] not in drawn
        drawn[line["name"]] = above[depth - 1] if depth else None
    real = {
        name: None if name == "RundiffError" else getattr(errors, name).__base__.__name__
        for name in errors.__all__
    }
    assert drawn == real


def test_the_drawing_in_the_docs_is_the_same_tree() -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    shown, real = (
        [(match["indent"], match["name"]) for match in DRAWING.finditer(text)]
        for text in (page, errors.__doc__ or "")
    )
    assert shown == real


def test_importing_rundiff_loads_nothing_heavy() -> None:
    assert loaded_by("import rundiff; rundiff.RundiffError") == set()


def test_showing_help_loads_nothing_heavy() -> None:
    each = "for command in ('sync', 'plan', 'status', 'sql'):\n    main([command, '--help'])"
    assert loaded_by(f"from rundiff.cli import main\nmain(['--help'])\n{each}") == set()


def test_signing_one_record_does_not_load_databases() -> None:
    assert loaded_by("import rundiff; rundiff.signature({'id': 1})").isdisjoint(
        {"duckdb", "sqlite3", "pandas", "rich"}
    )


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(rundiff.__file__).parent / "py.typed").exists()
