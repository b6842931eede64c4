"""Local copies: those used longest ago go first, and none that anybody uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rundiff.copies import InUse, copies_in, trim
from rundiff.engine.home import Home

MB = 1 << 20


def copy(path: Path, size: int, used: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_bytes(bytes(size))
    else:
        path.mkdir()
        (path / "creates.parquet").write_bytes(bytes(size // 2))
        (path / "meta.json").write_bytes(bytes(size - size // 2))
    os.utime(path, (used, used))
    return path


@pytest.fixture
def copies(tmp_path: Path) -> dict[Path, list[Path]]:
    one, other = tmp_path / "one", tmp_path / "other"
    return {
        one: [copy(one / "base-1.arrow", 3 * MB, 100), copy(one / "base-2.arrow", 3 * MB, 400)],
        other: [copy(other / "log", 2 * MB, 200), copy(other / "overlay.arrow", 10, 300)],
    }


def left(copies: dict[Path, list[Path]]) -> list[str]:
    return sorted(path.name for paths in copies.values() for path in paths if path.exists())


@pytest.mark.parametrize(
    ("most", "stays"),
    [
        (9 * MB, ["base-1.arrow", "base-2.arrow", "log", "overlay.arrow"]),
        (9 * MB - 1, ["base-2.arrow", "log", "overlay.arrow"]),
        (6 * MB - 1, ["base-2.arrow", "overlay.arrow"]),
        # A small one counts for a megabyte.
        (4 * MB - 1, ["base-2.arrow"]),
        (0, []),
    ],
)
def test_the_ones_used_longest_ago_go(copies: dict[Path, list[Path]], most: int, stays: list[str]) -> None:
    trim(copies, most)
    assert left(copies) == stays
    assert trim(copies, most) == 0


def test_what_is_in_use_stays(copies: dict[Path, list[Path]]) -> None:
    one, other = copies
    user, another = InUse(), InUse()
    for _ in range(2):
        user.hold(one)
    another.hold(one)
    trim(copies, 0)
    assert left(copies) == ["base-1.arrow", "base-2.arrow"]
    user.release()
    trim(copies, 0)
    assert left(copies) == ["base-1.arrow", "base-2.arrow"]
    another.release()
    another.release()
    trim(copies, 4 * MB)
    assert left(copies) == ["base-2.arrow"]
    assert [path.name for path in copies_in(one)] == ["base-2.arrow"]
    assert list(copies_in(other)) == []


def test_what_went_meanwhile_is_no_error(copies: dict[Path, list[Path]]) -> None:
    one, _ = copies
    (one / "base-1.arrow").unlink()
    trim(copies, 3 * MB)
    assert left(copies) == ["base-2.arrow"]


def test_a_home_gives_up_copies_only(tmp_path: Path) -> None:
    """The embedded database's write log, what waits, spools and files of the file store are no copies."""
    home = Home(tmp_path)
    kept = [
        copy(home.log("s", 1), MB, 1),
        copy(home.held("s", 1), MB, 1),
        copy(home.signatures / "s" / "base-1.arrow", MB, 1),
        copy(home.cache / "s" / "new" / "half.arrow", MB, 1),
        home.new_spool("s"),
        copy(tmp_path / f"fetch-{os.getpid()}-abc", MB, 1),
    ]
    seal = "0123456789abcdef" * 2
    gone = [
        copy(home.log("s", 2).with_name(f"00000002-{seal}"), MB, 1),
        copy(home.held("s", 2).with_name(f"00000002-{seal}"), MB, 1),
        copy(home.cache / "s" / "base-1.arrow", MB, 1),
        copy(tmp_path / f"fetch-{2**22 + 1}-abc", MB, 1),
    ]
    home.trim_copies(0)
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in gone if path.exists()] == []
