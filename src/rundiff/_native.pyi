"""The native core (`native/`): an extension module that is there only where it could be built.

All functions release the GIL while they work, share the work among `threads()` threads, and give the
same results whatever their number.
"""

import os
from collections.abc import Iterator, Sequence
from typing import final

import pyarrow as pa

__all__ = [
    "Examined",
    "Lookup",
    "ParquetReader",
    "Seen",
    "examine",
    "find_records",
    "sign",
    "sign2",
    "threads",
    "version",
]

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

def _sign_plain(
    batch: pa.RecordBatch, fields: Sequence[str], key: bytes | None = None
) -> tuple[pa.FixedSizeBinaryArray, list[tuple[int, str, str]]]:
    """Give what `sign` gives in the instructions that every processor of this kind has, for comparison."""

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

    def prepare(self, rows: int) -> None:
        """Get ready for so many more rows; raises ValueError if a segment is found not to be sorted."""

    @property
    def base_rows(self) -> int: ...
    @property
    def overlay_rows(self) -> int: ...

@final
class Examined:
    """What a baseline says of a batch's rows: the answer of `examine`, to be taken by `Seen`."""

    @property
    def unsignable(self) -> list[tuple[int, str, str]]:
        """(row, field, reason) of the values that can't be signed; if there are any, use nothing else."""

    def others(self) -> pa.Int64Array:
        """The rows that a run keeps in any case, ascending: new and changed ones."""

    def __len__(self) -> int: ...

def examine(
    lookup: Lookup,
    batch: pa.RecordBatch,
    key_fields: Sequence[str],
    data_fields: Sequence[str],
    key: bytes | None = None,
) -> Examined:
    """Sign each row as `sign2` does and look it up as `Lookup.probe` does, in one pass over the batch.

    Works on the calling thread alone: call it from several. Call `Lookup.prepare` before. Raises
    ValueError as `sign` does.
    """

@final
class Seen:
    """What a run has met of `positions` baseline entries: three bits each. Safe to use from several threads."""

    def __new__(cls, positions: int) -> Seen: ...
    def take(
        self, examined: Examined
    ) -> tuple[pa.Int64Array, pa.FixedSizeBinaryArray, pa.FixedSizeBinaryArray, pa.UInt8Array, pa.Int64Array]:
        """Note a batch, in order of reading; give the rows that a run keeps (`compare.seen.Seen.take`).

        Gives rows, key signatures, data signatures, states and positions of those.
        """

    def note(self, states: pa.UInt8Array, positions: pa.Int64Array, keep_all: bool) -> pa.Int64Array:
        """The same for the answer of a probe; gives the rows to keep. Raises ValueError for a position too high."""

    def read(self) -> pa.UInt8Array:
        """By position, 1 where the key was read in any way, else 0."""

    def implied(self) -> pa.UInt8Array:
        """By position, 1 where the key was read with the same data, in a record that was not kept."""

    @property
    def dropped_duplicates(self) -> int:
        """Records that were not kept and repeat another such record of their key."""

@final
class JoinedParquet:
    """A Parquet file that is put together of others, all of one schema, whose pages stay as they are."""

    def append(self, file: pa.UInt8Array) -> bytes:
        """Take over the row groups of a whole file, its bytes an array, and give the bytes to be written next.

        The first file says what the schema and its metadata are. Raises `ValueError` where a file can't be read.
        """

    def end(self) -> bytes:
        """Give the footer, the last bytes of the file; nothing can follow.

        Raises `ValueError` if nothing was appended.
        """

@final
class ParquetReader:
    """The records of a Parquet file in order, as struct arrays of `rows` rows at most.

    `schema` gives the plain types of all columns, none of them nested. Columns are decoded side by side,
    ahead of their taker. Raises ValueError for what can't be decoded, at once or in the midst.
    """

    def __new__(cls, path: str | os.PathLike[str], schema: pa.Schema, rows: int) -> ParquetReader: ...
    def __iter__(self) -> Iterator[pa.StructArray]: ...
    def __next__(self) -> pa.StructArray: ...

def checksums(content: pa.UInt8Array, ends: Sequence[int]) -> list[int]:
    """XXH3 (64 bits) of the bytes up to each end, from the one before; raises `ValueError` for ends outside."""

def find_records(
    path: str | os.PathLike[str], column: str, signatures: pa.FixedSizeBinaryArray
) -> list[tuple[pa.Int64Array, pa.Array]]:
    """Find ascending signatures in a Parquet file that is sorted by its column `primary_key_signature`.

    Gives, for each row group that has any of them, which ones, and their values of `column`. Page
    checksums are verified. Raises ValueError for a file that can't be read.
    """

def threads() -> int:
    """Tell how many threads share the work: one per core, or what RAYON_NUM_THREADS says."""

def _sha256_limit(messages: int, bytes: int) -> list[tuple[str, float]]:  # noqa: A002 - the name says the unit
    """Hash `messages` messages of `bytes` bytes each on all cores, without encoding anything.

    Gives the ways of hashing that the processor has, and the seconds that each took: `plain` (the `sha2`
    crate, one message at a time), `pairs` (two in flight in the SHA instructions), `wide` (16 side by side
    in AVX-512 registers). `sign` hashes in the last one. The least is what signing is measured against.
    """
