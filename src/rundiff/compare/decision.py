"""The decision table of a run (design section 2), the only place where it stands."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Decision", "decide"]


class Decision(IntEnum):
    """What a run does about a key; the destination decides whether NEW means create or insert."""

    NOTHING = 0
    NEW = 1
    UPDATE = 2
    DELETE = 3


def decide(
    *, known: npt.NDArray[Any] | bool, read: npt.NDArray[Any] | bool, same: npt.NDArray[Any] | bool
) -> npt.NDArray[np.uint8]:
    """Decide for keys, by whether the baseline has them, the run read them, and the data is the same.

    ===== ==== ======= =======================================================
    known read same    decision
    ===== ==== ======= =======================================================
    no    yes  --      new
    yes   yes  yes     nothing: an exact duplicate of what the destination holds
    yes   yes  no      update
    yes   no   --      delete, if the run is allowed to delete
    ===== ==== ======= =======================================================

    The arguments are boolean arrays of one length, or single values that hold for all.
    """
    known, read, same = np.broadcast_arrays(known, read, same)
    decision = np.full(known.shape, Decision.NOTHING, dtype=np.uint8)
    decision[read & ~known] = Decision.NEW
    decision[read & known & ~same] = Decision.UPDATE
    decision[known & ~read] = Decision.DELETE
    return decision
