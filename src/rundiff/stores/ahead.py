"""Items of an iterator, taken ahead on a thread: who fetches and who works on what was fetched don't wait for each
other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")

_POLL_SECONDS = 0.1


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """Yield the items, of which `most` are taken ahead; errors of the iterator come in their place.

    The thread ends with the generator that is returned: close it, or take all of it.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(most)
    ended = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                waiting.put(entry, timeout=_POLL_SECONDS)
                return

    def take() -> None:
        try:
            for item in items:
                put((item, None, False))
                if ended.is_set():
                    return
            put((None, None, True))
        except BaseException as error:  # noqa: BLE001 -- raised where the item would have come
            put((None, error, True))

    thread = threading.Thread(target=take, name="rundiff-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = waiting.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]  # only the last entry and errors have none
    finally:
        ended.set()
        thread.join()
