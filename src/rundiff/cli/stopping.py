"""Ctrl-C and SIGTERM: end what is under way in order, and within ten seconds whatever happens."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rundiff.model import RunResult, RunStatus

__all__ = ["GRACE_SECONDS", "Terminated", "orderly_stops", "stop_code", "stop_sentence"]

GRACE_SECONDS = 8.0
"""After so long the process ends as it stands: a run can be killed at any point and is still gone on with."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. What catches Ctrl-C catches it, too."""


@contextmanager
def orderly_stops() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions of the main thread; a second signal ends the process at once.

    A signal that the caller of the process had ignored, as nohup does, stays so. Does nothing on
    another thread, where no handlers can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = threading.Event()

    def end_now(number: int) -> None:
        os.write(2, b"rundiff: ended at once; the next run goes on from the state that was reached.\n")
        os._exit(128 + number)

    def stop(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            end_now(number)
        asked.set()
        watch = threading.Timer(GRACE_SECONDS, end_now, [number])
        watch.daemon = True
        watch.start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # One that was not set from Python can't be set again; it was the system's default.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def stop_code(error: BaseException) -> int:
    """128 and the signal's number, as shells count it."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def stop_sentence(error: BaseException) -> str:
    """Say what was stopped where, and what the next run will do."""
    how = "stopped by SIGTERM" if isinstance(error, Terminated) else "interrupted"
    result = getattr(error, "result", None)
    if not isinstance(result, RunResult) or result.run is None:
        return f"{how}; what a run had begun, the next one finishes or discards."
    if result.status is not RunStatus.FAILED:
        return f"{how}; run {result.run} of sync {result.sync} was committed before."
    if result.warnings:
        return f"{how}: sync {result.sync}: {result.warnings[0]}."
    return f"{how}: sync {result.sync}: run {result.run} had delivered nothing, and the next run reads the source anew."
