"""What becomes of failures: what they leave in the baseline, and which later run settles them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.order import SIGNATURE
from rundiff.database.contract import Failure
from rundiff.engine.candidate import Unwritten, logged_keys
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.deletions import Looked

__all__ = ["looked_at", "superseded", "unwritten"]


def unwritten(failures: Iterable[Failure]) -> Unwritten:
    """Sort the failures of a run by what they leave in the baseline."""
    keys: dict[str, set[bytes]] = {"refused": set(), "unknown": set()}
    for failure in failures:
        if failure.sequence > 0 and failure.primary_key_signature is not None:
            keys[failure.outcome].add(failure.primary_key_signature)
    return Unwritten(refused=keys["refused"], unknown=keys["unknown"])


def superseded(
    failures: Sequence[Failure], changes: ChangeSet, again: set[bytes], settled: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Find those open failures of earlier runs, as (run, sequence), that a run settles by its commit.

    A complete run of the full scope settles all: each key was written, refused again, or is as it was
    before. Any other settles those of the keys that it has write records for or sets aside (`again`),
    and those in `settled`.
    """
    if not failures or changes.findings.whole:
        return [(failure.run, failure.sequence) for failure in failures]
    keys = {f.primary_key_signature for f in failures if f.primary_key_signature is not None}
    over = again | logged_keys(changes, keys)
    return [
        (failure.run, failure.sequence)
        for failure in failures
        if failure.primary_key_signature in over or (failure.run, failure.sequence) in settled
    ]


def looked_at(failures: Sequence[Failure], baseline: Baseline, looked: Looked) -> set[tuple[int, int]]:
    """Find the failures of keys that the baseline holds and that a run read, or could tell to be gone.

    What was refused of them is out of date, also where the run has no write record for them: the
    source has taken it back.
    """
    of_keys = [failure for failure in failures if failure.primary_key_signature is not None]
    if not of_keys:
        return set()
    keys = pa.array([failure.primary_key_signature for failure in of_keys], SIGNATURE)
    _, position = baseline.lookup.probe(keys, keys)
    known = np.flatnonzero(position >= 0)
    told = (looked.read | looked.judged)[position[known]]
    return {(of_keys[row].run, of_keys[row].sequence) for row in known[told].tolist()}
