"""Items that are taken ahead come in order, with their errors, and no thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from rundiff.stores.ahead import ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rundiff-ahead"]


def test_all_items_in_order() -> None:
    assert list(ahead(iter(range(1000)), 3)) == list(range(1000))
    assert list(ahead(iter(()), 3)) == []
    assert threads() == []


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the server went away")

    found = []
    with pytest.raises(OSError, match="went away"):
        found.extend(ahead(items(), 3))
    assert threads() == []


def test_leaving_early_ends_the_thread_and_takes_little_more() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with closing(ahead(items(), 3)) as found:
        assert next(found) == 0
    assert threads() == []
    assert len(taken) <= 6
