"""Where the changes of a run go: a destination, a Python function, or the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rundiff.errors import ConfigurationError
from rundiff.settings import DestinationOptions

if TYPE_CHECKING:
    from rundiff.destinations.contract import Destination

__all__ = ["open_sink"]


def open_sink(options: DestinationOptions, *, refuse_caller: str | None = None) -> Destination:
    """Open a destination; none given means that the caller delivers.

    Who would deliver something gives the sync's name as `refuse_caller`: nobody would receive it.
    """
    if options.function is not None:
        from rundiff.destinations.python import open_python

        return open_python(options.function)
    if options.url is None:
        from rundiff.engine.caller import CallerDestination

        if refuse_caller is not None:
            raise ConfigurationError(
                f"sync {refuse_caller} has no destination: its changes go to the program that calls "
                "rundiff.changes. Name a destination, or call rundiff.changes; with a higher limit, such as "
                "max_delete_percent=100, it gives what a guard holds"
            )
        return CallerDestination()
    from rundiff.destinations import open_destination

    return open_destination(options)
