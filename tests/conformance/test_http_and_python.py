"""HTTP APIs and Python functions against the one suite of destinations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.http import Reply, api_server

from rundiff.destinations import open_destination
from rundiff.destinations.python import open_python
from rundiff.model import SyncWriteRecord
from rundiff.settings import DestinationOptions
from rundiff.testing.destinations import DestinationSuite, Harness


class TestHttp(DestinationSuite):
    """One request after the other, in batches, whose lines tell everything."""

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        with api_server() as server:
            server.rule = lambda _: Reply()
            options = DestinationOptions(
                url=server.url, http_allow_private=True, http_batch=7, http_concurrency=1
            )
            yield Harness(
                open=lambda: open_destination(options),
                changes=lambda: [change for seen in server.seen for change in seen.body],
            )


class TestPython(DestinationSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        taken: list[SyncWriteRecord] = []

        def changes() -> list[dict[str, Any]]:
            return [
                {
                    "sequence": record.sequence,
                    "action": str(record.destination_action),
                    "primary_key": dict(record.primary_key),
                    "data": record.data,
                }
                for record in taken
            ]

        return Harness(open=lambda: open_python(taken.extend), changes=changes)
