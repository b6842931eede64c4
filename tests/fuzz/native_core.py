"""Look for differences between the native core and Python's for as long as you like.

Not part of the suite: `python -m tests.fuzz.native_core --minutes 30`. It repeats the property tests
of the native core with ever new examples, and ends at the first difference. Built with a sanitizer
(see docs/decisions), it looks for reads out of bounds as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.property import test_native_lookup, test_native_reading, test_native_signing


def properties() -> list[Callable[[], Any]]:
    """The property tests of the native core; each call draws new examples."""
    return [
        test
        for module in (test_native_signing, test_native_lookup, test_native_reading)
        for name, test in vars(module).items()
        if name.startswith("test_")
    ]


def main() -> int:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    end = time.monotonic() + minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        for check in properties():
            check()
        rounds += 1
        sys.stdout.write(f"round {rounds}: no difference\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
