"""The native core (`native/`): an extension module that is there only where it could be built.

All functions release the GIL while they work, share the work among `threads()` threads, and give the
same results whatever their number.
"""

from collections.abc import Sequence
from typing import final

import pyarrow as pa

__all__ = ["Lookup", "sign", "sign2", "threads", "version"]

version: str
"""The version of the crate."""

def sign(
    batch: pa.RecordBatch, fields: Sequence[str], key: bytes | None = None
) -> tuple[pa.FixedSizeBinaryArray, list[tuple[int, str, str]]]:
    """Sign each row of a batch over `fields` (design section 3), as HMAC-SHA-256 if there is a key.

    Gives fixed_size_binary[32], null where a value can't be signed, and (row, field, reason) for each
    such value, in order of rows, then fields. Fields that the batch lacks count as null. Raises
    ValueError for a field whose type has no signature, or that occurs twice.
    """

def sign2(
    batch: pa.RecordBatch, key_fields: Sequence[str], data_fields: Sequence[str], key: bytes | None = None
) -> tuple[pa.FixedSizeBinaryArray, pa.FixedSizeBinaryArray, list[tuple[int, str, str]]]:
    """Sign each row twice, over its key fields and its compared fields, in one pass.

    The results are those of two calls of `sign`; a value that both can't sign is listed once.
    """

@final
class Lookup:
    """Signatures in a base segment and the overlay above it, both sorted by primary key signature.

    Each segment is a list of record batches with `primary_key_signature` and `data_signature`
    (fixed_size_binary[32]) and `flags` (uint8), without nulls; their memory is used as it is. Flag 1
    marks an entry as deleted, flag 4 as uncertain (it differs from everything). Raises ValueError for
    other columns. Safe to use from several threads.
    """

    def __new__(cls, base: Sequence[pa.RecordBatch], overlay: Sequence[pa.RecordBatch]) -> Lookup: ...
    def probe(
        self, key_signatures: pa.FixedSizeBinaryArray, data_signatures: pa.FixedSizeBinaryArray
    ) -> tuple[pa.UInt8Array, pa.Int64Array]:
        """Judge records by their signatures: a state and a position each.

        States: 0 new (absent, or deleted), 1 same, 2 changed (or uncertain), 3 one of the signatures is
        null. Positions count from 0 in the base, then on in the overlay, which overrides the base; -1
        for states 0 and 3. Raises ValueError if a segment is found not to be sorted.
        """

    def superseded(self) -> pa.Int64Array:
        """Give the ascending positions of the base that the overlay also holds."""

    @property
    def base_rows(self) -> int: ...
    @property
    def overlay_rows(self) -> int: ...

def threads() -> int:
    """Tell how many threads share the work: one per core, or what RAYON_NUM_THREADS says."""

def _sha256_limit(messages: int, bytes: int) -> tuple[float, float]:  # noqa: A002 - the name says the unit
    """Hash `messages` messages of `bytes` bytes each on all cores, without encoding anything.

    Gives the seconds that it took one message at a time, and as `sign` does it: what signing is
    measured against.
    """
