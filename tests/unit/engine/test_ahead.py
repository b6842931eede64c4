"""One step ahead: order, errors, and an end before the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rundiff.engine.ahead import ahead


def test_everything_comes_in_order_and_is_made_elsewhere() -> None:
    threads = set()

    def items() -> Iterator[int | None]:
        for number in (1, None, 3):
            threads.add(threading.get_ident())
            yield number

    assert list(ahead(items())) == [1, None, 3]
    assert threading.get_ident() not in threads


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    given = ahead(items())
    assert next(given) == 1
    with pytest.raises(OSError, match="torn"):
        next(given)


def test_one_that_is_left_early_makes_at_most_one_more() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    for item in ahead(items()):
        if item == 3:
            break
    assert len(made) <= 5
