"""Where text for people is printed: colour and folding on a terminal, plain text elsewhere."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

__all__ = ["UNBOUNDED", "console"]

UNBOUNDED = 100_000
"""Wider than any line: what goes into a file or a pipe is never folded or cut."""


def console(stream: TextIO) -> Console:
    """Make a console for a stream; NO_COLOR and streams that are no terminal get plain text."""
    on_terminal = stream.isatty()
    plain = not on_terminal or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream,
        width=None if on_terminal else UNBOUNDED,
        color_system=None if plain else "auto",
        force_terminal=on_terminal,
        markup=False,
        highlight=False,
        emoji=False,
    )
