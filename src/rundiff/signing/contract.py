"""The seam between a run and its signer, native or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import pyarrow as pa

__all__ = ["FORMAT_VERSION", "SignedBatch", "Signer", "SigningKey", "Unsignable"]

FORMAT_VERSION = 1
"""The version of the signature format (design section 3)."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The secret under which signatures are HMAC-SHA-256; `id` may be stored, `secret` never."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hex digits that tell keys apart and say nothing of the secret."""
        return hashlib.sha256(b"rundiff signing key id\0" + self.secret).hexdigest()[:16]


class Unsignable(msgspec.Struct, frozen=True):
    """A record with a value that has no signature: invalid UTF-8, duplicate map keys."""

    row: int
    """Its row in the batch, from 0."""
    field: str
    reason: str


class SignedBatch(msgspec.Struct, frozen=True):
    """The signatures of a batch: fixed_size_binary[32], null where a record can't be signed."""

    signatures: pa.FixedSizeBinaryArray
    unsignable: Sequence[Unsignable] = ()


class Signer(Protocol):
    """Sign each row of a batch over some of its fields (design section 3).

    Fields that the batch lacks count as null. A union or unknown extension type raises
    `ConfigurationError` that names the field.
    """

    def __call__(
        self, batch: pa.RecordBatch, fields: Sequence[str], key: SigningKey | None = None
    ) -> SignedBatch:
        """Give the signatures, null in the rows that can't be signed; safe to call from many threads."""
