"""One step ahead: the next item is made on a thread of its own while the present one is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield what `items` yields; one item more than the caller holds is in memory.

    Errors are raised where the item would have been yielded. `items` is worked on by one thread, never
    by two at a time, and no longer once this iterator is closed.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="rundiff-ahead") as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # the mark of the end is none of the items
