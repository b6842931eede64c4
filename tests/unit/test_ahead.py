"""Some steps ahead: order, errors, an end before the end, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from rundiff.ahead import ahead

MOST = pytest.mark.parametrize("most", [1, 3])


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rundiff-ahead")]


@MOST
def test_everything_comes_in_order_and_is_made_elsewhere(most: int) -> None:
    makers = set()

    def items() -> Iterator[int | None]:
        for number in (1, None, 3, *range(1000)):
            makers.add(threading.current_thread().name)
            yield number

    assert list(ahead(items(), most)) == [1, None, 3, *range(1000)]
    assert len(makers) == 1
    assert all(name.startswith("rundiff-ahead") for name in makers)
    assert list(ahead(iter(()), most)) == []
    assert threads() == []


@MOST
def test_an_error_comes_after_the_items_before_it(most: int) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    given = ahead(items(), most)
    assert next(given) == 1
    with pytest.raises(OSError, match="torn"):
        next(given)
    assert threads() == []


@MOST
def test_one_that_is_left_early_makes_little_more(most: int) -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    with closing(ahead(items(), most)) as given:
        assert [next(given) for _ in range(4)] == [0, 1, 2, 3]
    assert threads() == []
    assert len(made) <= 4 + most
