"""The conformance suite of destinations: what `rundiff.destinations.contract` promises, as tests.

Write a subclass whose `harness` fixture makes an empty target, and pytest runs the suite on it:

    class TestMine(DestinationSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(open=lambda: MyDestination(tmp_path), changes=lambda: read(tmp_path))

What a destination does not claim by its capabilities is skipped, not asked for.
"""

from __future__ import annotations

from rundiff.testing.every_destination import EveryDestination
from rundiff.testing.harness import Harness
from rundiff.testing.modes import Modes
from rundiff.testing.readable import Readables
from rundiff.testing.tables import Tables
from rundiff.testing.transactions import Transactional

__all__ = ["DestinationSuite", "Harness"]


class DestinationSuite(EveryDestination, Transactional, Tables, Modes, Readables):
    """Every promise of the contract that the destination of `harness` makes."""
