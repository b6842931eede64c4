"""A function as a source: it is told what to read, and returns what can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rundiff.errors import ConfigurationError
from rundiff.sources.contract import Reading, ReadRequest

__all__ = ["CallingSource"]


class CallingSource:
    """Calls a function with the `ReadRequest` of each run; its answer is any other source."""

    may_delete_without_count = True
    location = "rows"

    def __init__(self, function: Callable[[ReadRequest], Any]) -> None:
        self._function = function

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[Reading]:
        """Begin one reading; see `contract.Source`."""
        from rundiff.sources.registry import open_source

        answer = self._function(request)
        if callable(answer) or answer is None:
            raise ConfigurationError(
                "The function that is the source returned no records; return an iterable of mappings, a table "
                "with the Arrow PyCapsule interface, or a path."
            )
        source = open_source(answer)
        if not source.may_delete_without_count and request.options.expected_rows is None:
            raise ConfigurationError(
                "The function that is the source returned standard input; name `-` itself as the source."
            )
        with source.open(request) as reading:
            yield reading
