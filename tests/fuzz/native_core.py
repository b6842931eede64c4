"""Look for differences between the native core and Python's for as long as you like.

Not part of the suite: `python -m tests.fuzz.native_core --minutes 30`. It repeats the property tests
of the native core with ever new examples, and ends at the first difference. Built with a sanitizer
(see docs/decisions), it looks for reads out of bounds as well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

FILES = [f"tests/property/test_native_{what}.py" for what in ("signing", "lookup", "reading")]


def main() -> int:
    """Run rounds, each with new examples, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    end = time.monotonic() + minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        # A process for each round: the suite's set-up is made for one run in each.
        code = subprocess.run([sys.executable, "-m", "pytest", "-x", *FILES], check=False).returncode
        if code:
            return code
        rounds += 1
        sys.stdout.write(f"round {rounds}: no difference\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
