"""Why a DuckDB file can't be opened, told from DuckDB's own messages."""

from __future__ import annotations

import re

__all__ = ["why_closed"]


def why_closed(message: str) -> str | None:
    """Say why a file can't be opened and what to do, to follow its name; None if the message is of something else."""
    if "Could not set lock" in message or "different configuration" in message:
        holder = re.search(r"\(PID (\d+)\)", message)
        who = f"by the process {holder[1]}" if holder else "elsewhere"
        return f"is held open {who}: close it there, then run again."
    if "not a valid DuckDB database" in message:
        return "is not a DuckDB database: name another file."
    return None
