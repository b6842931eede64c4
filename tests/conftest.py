"""What all suites share: a home directory of their own, and Hypothesis profiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.memory import Memory

pytest_plugins = ["tests.servers.fixtures"]

settings.register_profile(
    "suite",
    deadline=None,
    max_examples=int(os.environ.get("RUNDIFF_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("suite")

_memory = Memory.take()


_FIRST = ("faults", "docs", "property", "integration", "conformance")
"""Folders by the length of their tests: what is started last should be short, so that no worker waits for another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    above = Path(__file__).parent
    order = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(above).parts[0], len(order)))


def pytest_unconfigure() -> None:
    if _memory is not None:
        _memory.release()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that no other test sees."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RUNDIFF_HOME", str(folder))
    for name in (
        "RUNDIFF_SIGNING_KEY",
        "RUNDIFF_SIGNING_KEY_FORMER",
        "RUNDIFF_DATABASE",
        "RUNDIFF_SIGNATURES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return folder
