"""The original design, written plainly: a record at a time in Python, signatures in Valkey.

Signatures are SHA-256 of `json.dumps`. A hash holds the data signature and the key values of each key
signature, since a delete has to name its record; each run adds the key signatures that it saw to a set, and
SDIFF with the last run's set gives the deletions. Sets expire after 7 days, so that the last run's is still
there when this one ends. 1,000 records a batch, each batch one pipeline. The server's start, and its loading
and saving of what the first run left, are not counted: in use it would be running.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import redis

from benchmarks.peers.outcome import Job, Outcome, job, state
from benchmarks.peers.valkey_server import going_on

_BATCH = 1_000
_BASELINE = "baseline"
_KEPT_SECONDS = 7 * 24 * 3600


def main() -> None:
    """Start a server on what is left of the last run, compare, and leave it saved."""
    given = job()
    begun = time.perf_counter()
    with going_on(given.folder) as (client, _):
        empty = client.info("memory")["used_memory_startup"]
        started = time.perf_counter()
        counts = _run(given, client)
        seconds = time.perf_counter() - started
        kept = client.hlen(_BASELINE)
        memory = client.info("memory")["used_memory"] - empty
    state(
        Outcome(
            seconds=seconds,
            created=counts[0],
            updated=counts[1],
            deleted=counts[2],
            not_counted=time.perf_counter() - begun - seconds,
            figures={"state_bytes_per_record": memory / max(1, kept)},
        )
    )


def _run(given: Job, client: redis.Redis) -> tuple[int, int, int]:
    seen, last = (f"seen:{number}" for number in ((2, 1) if given.phase == "second" else (1, 0)))
    created = updated = 0
    for records in _batches(given.source):
        keys = [_signature({"id": record["id"]}) for record in records]
        signatures = [_signature(record) for record in records]
        known = client.hmget(_BASELINE, keys)
        changed = {}
        for key, signature, before, record in zip(keys, signatures, known, records, strict=True):
            if before is None:
                created += 1
            elif before[:32] != signature:
                updated += 1
            else:
                continue
            changed[key] = signature + json.dumps({"id": record["id"]}).encode()
        pipeline = client.pipeline(transaction=False)
        pipeline.sadd(seen, *keys)
        if changed:
            pipeline.hset(_BASELINE, mapping=changed)
        pipeline.execute()
    gone = list(client.sdiff([last, seen]))
    for start in range(0, len(gone), _BATCH):
        some = gone[start : start + _BATCH]
        deleted = [json.loads(value[32:]) for value in client.hmget(_BASELINE, some)]
        client.hdel(_BASELINE, *some[: len(deleted)])
    client.expire(seen, _KEPT_SECONDS)
    return created, updated, len(gone)


def _signature(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).digest()


def _batches(path: str) -> Iterator[list[dict[str, Any]]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
        yield batch.to_pylist()


if __name__ == "__main__":
    main()
