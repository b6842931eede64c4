"""What a server's answer to a request with several records says of each."""

from __future__ import annotations

from typing import Any

import msgspec

from rundiff.destinations.contract import NotWritten
from rundiff.errors import DestinationError

__all__ = ["GONE", "outcomes"]

GONE = (404, 410)
"""Statuses by which a record that is to be deleted is deleted."""


def outcomes(answer: tuple[int, bytes], sequences: list[int], run: str, *, deleted: bool) -> list[NotWritten]:
    """Read what a server says of each record of a request: an array, alone or under `results`.

    An entry belongs to the record of its `idempotency_key`, or else of its place. It has a `status` (as
    of HTTP) or `ok`, and perhaps an `error`. Without entries a 2xx speaks for all records, but 207 does not.
    """
    status, body = answer
    try:
        said: Any = msgspec.json.decode(body) if body.strip() else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = None
    if isinstance(said, dict):
        said = said.get("results")
    if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
        if status == 207:
            raise DestinationError("the server answered 207, but names no outcome of each record")
        return []
    named = {f"{run}/{n}": n for n in sequences}
    if not any("idempotency_key" in entry for entry in said) and len(said) != len(sequences):
        raise DestinationError(
            f"the server tells the outcome of {len(said)} records, but {len(sequences)} were sent"
        )
    aside = []
    for place, entry in enumerate(said):
        sequence = named.get(entry["idempotency_key"]) if "idempotency_key" in entry else sequences[place]
        verdict = entry.get("status", 200 if entry.get("ok", True) else 400)
        code = verdict if isinstance(verdict, int) else 200
        if sequence is None or 200 <= code < 300 or (deleted and code in GONE):
            continue
        words = entry.get("error") or entry.get("message") or entry.get("detail")
        error = f"the server answered {code}" + (f": {words[:200]}" if isinstance(words, str) else "")
        unknown = code in (408, 425, 429) or code >= 500
        aside.append(NotWritten(sequence=sequence, error=error, unknown=unknown))
    return aside
