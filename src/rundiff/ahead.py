"""Some steps ahead: the next items are made on a thread of their own while the present one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T], most: int = 1) -> Generator[T, None, None]:
    """Yield what `items` yields; `most` items more than the caller holds are in memory.

    Errors are raised where the item would have been yielded. `items` is worked on by one thread, never
    by two at a time, and no longer once this iterator is closed.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="rundiff-ahead") as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(most))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]  # the mark of the end is none of the items
        finally:
            for following in waiting:
                following.cancel()
