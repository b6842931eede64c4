"""Columns whose values keep their own types, one by one (`rundiff.cbor`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rundiff.sources.spelling import Mask

__all__ = ["mixed_column"]


def mixed_column(values: Sequence[Any]) -> tuple[pa.Array, Mask | None]:
    """Encode values of any types; the mask marks those that have no signature, null in the array."""
    from rundiff.signing.mixed import encode
    from rundiff.signing.reference import UnsignableValue
    from rundiff.signing.reference import encode as encode_value

    try:
        return encode(values), None
    except UnsignableValue:
        kept = list(values)
    misfit = np.zeros(len(kept), np.bool_)
    for row, value in enumerate(kept):
        try:
            encode_value(value)
        except UnsignableValue:
            misfit[row], kept[row] = True, None
    return encode(kept), misfit
