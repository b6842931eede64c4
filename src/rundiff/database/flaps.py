"""Records that change back and forth: the query over a write log, wherever it is kept.

A record has one state after each run that wrote it: its data signature, or gone. Its states in the order of
the runs, repeated ones taken as one, are its changes; each change to a state that it had before is a return.
A → B → A → B has two returns, and so has a record that is deleted and created again twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["FLAPS", "RETURNS", "SAMPLE", "FlappingRecord", "Flaps", "described"]

RETURNS = 2
"""A record with fewer returns does not flap: it may just have been mended."""
SAMPLE = 10
"""As many records are described, those with the most returns first."""

FLAPS = f"""
WITH records AS ({{records}}),
moves AS (
    SELECT key, run, gone, data, lag(gone) OVER w AS gone_before, lag(data) OVER w AS data_before,
        row_number() OVER w AS place
    FROM records
    -- Two returns take four changes.
    WHERE key IN (SELECT key FROM records GROUP BY key HAVING count(*) >= {RETURNS + 2})
    WINDOW w AS (PARTITION BY key ORDER BY run)
),
states AS (
    SELECT key, gone, CASE WHEN gone THEN NULL ELSE data END AS data FROM moves
    WHERE place = 1 OR gone <> gone_before OR (NOT gone AND data <> data_before)
),
flaps AS (
    SELECT key, count(*) AS changes, count(CASE WHEN gone THEN 1 END) AS deletes,
        count(*) - count(DISTINCT data) - max(CASE WHEN gone THEN 1 ELSE 0 END) AS returns
    FROM states GROUP BY key
)
SELECT key, changes, deletes, returns, count(*) OVER () AS flapping FROM flaps WHERE returns >= {RETURNS}
ORDER BY returns DESC, key LIMIT {SAMPLE}
"""
"""In the SQL that DuckDB and PostgreSQL share; `records` has the columns key, run, gone and data."""


class FlappingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record that changes back and forth."""

    primary_key: Mapping[str, Any]
    """By field, with the values of its JSON."""
    changes: int
    """Changes of its state in these runs."""
    returns: int
    """How many of them brought an earlier state back."""
    deletes: int
    """How many of them were deletions."""
    fields: tuple[str, ...]
    """Those that updates changed more than once, the most frequent first; none where it was only deleted and created
    again."""


class Flaps(msgspec.Struct, frozen=True):
    """How many records of a log flap, and some of them."""

    count: int
    sample: Sequence[FlappingRecord]


def described(found: Sequence[Mapping[str, Any]], details: Iterable[tuple[bytes, str, Any]]) -> Flaps:
    """Put together what `FLAPS` gave and, of its keys, each write record's key as JSON and changed fields."""
    keys: dict[bytes, str] = {}
    fields: dict[bytes, Counter[str]] = {}
    for signature, primary_key, changed in details:
        keys[signature] = primary_key
        fields.setdefault(signature, Counter()).update(changed or ())
    if not found:
        return Flaps(0, [])
    return Flaps(
        int(found[0]["flapping"]),
        [
            FlappingRecord(
                primary_key=json.loads(keys[row["key"]]),
                changes=int(row["changes"]),
                deletes=int(row["deletes"]),
                returns=int(row["returns"]),
                fields=tuple(name for name, times in fields[row["key"]].most_common() if times > 1),
            )
            for row in found
        ],
    )
