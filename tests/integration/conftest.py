"""Tables that tests look at and tamper with by hand, on each kind of database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers.tables import KINDS, Tampered, open_tampered


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Tampered:
    """One of each kind."""
    return open_tampered(request.param, request, tmp_path)


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Tampered:
    """The one that needs no server."""
    return open_tampered("sqlite", request, tmp_path)
