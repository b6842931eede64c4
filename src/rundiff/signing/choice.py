"""Which signer this process uses: the native one where it is built, else the one in Python.

Both give the same bytes. `RUNDIFF_NATIVE=0` turns the native one off. Nothing heavy is imported
before the first batch is signed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import pyarrow as pa

from rundiff.signing.contract import SignedBatch, Signer, SigningKey, Unsignable

__all__ = ["available_signers", "sign", "sign_both", "signer_name"]

SignerName = Literal["native", "python"]
Pair = Callable[
    [pa.RecordBatch, tuple[Sequence[str], Sequence[str]], SigningKey | None], tuple[SignedBatch, SignedBatch]
]


def sign(batch: pa.RecordBatch, fields: Sequence[str], key: SigningKey | None = None) -> SignedBatch:
    """Sign each row of a batch over `fields` (design section 3); safe to call from many threads.

    Gives 32 bytes a row, null where a value can't be signed, with the reasons beside. A field that the
    batch lacks counts as null. Raises `ConfigurationError` for a union or an unknown extension type.
    """
    return _chosen()[1](batch, fields, key)


def sign_both(
    batch: pa.RecordBatch, fields: tuple[Sequence[str], Sequence[str]], key: SigningKey | None = None
) -> tuple[SignedBatch, SignedBatch]:
    """Sign each row twice, over the key fields and over the compared fields, in one pass where that pays.

    What can't be signed is listed with the compared fields, which the key fields are among.
    """
    native = _chosen_pair()
    if native is not None:
        return native(batch, fields, key)
    return sign(batch, fields[0], key), sign(batch, fields[1], key)


def signer_name() -> SignerName:
    """Tell which signer `sign` uses."""
    return _chosen()[0]


def available_signers() -> dict[SignerName, Signer]:
    """Give every signer that can be used here, by name; for tests that compare them."""
    signers: dict[SignerName, Signer] = {"python": _python()}
    native = _native()
    if native is not None:
        signers["native"] = native
    return signers


@cache
def _chosen() -> tuple[SignerName, Signer]:
    native = None if os.environ.get("RUNDIFF_NATIVE") == "0" else _native()
    return ("python", _python()) if native is None else ("native", native)


@cache
def _chosen_pair() -> Pair | None:
    return _native_pair() if signer_name() == "native" else None


def _native_pair() -> Pair:
    extension: Any = importlib.import_module("rundiff._native")
    from rundiff.signing.signable import names_survive, present_fields

    def sign_pair(
        batch: pa.RecordBatch, fields: tuple[Sequence[str], Sequence[str]], key: SigningKey | None = None
    ) -> tuple[SignedBatch, SignedBatch]:
        keys, data = (present_fields(batch.schema, names) for names in fields)
        wanted = list(dict.fromkeys([*keys, *data]))
        if not names_survive(batch.schema, wanted):
            return sign(batch, keys, key), sign(batch, data, key)
        secret = None if key is None else key.secret
        key_signatures, data_signatures, bad = extension.sign2(batch.select(wanted), keys, data, secret)
        unsignable = [Unsignable(*entry) for entry in bad]
        return SignedBatch(pa.array(key_signatures)), SignedBatch(pa.array(data_signatures), unsignable)

    return sign_pair


def _python() -> Signer:
    from rundiff.signing import arrow

    return arrow.sign


def _native() -> Signer | None:
    try:
        extension: Any = importlib.import_module("rundiff._native")
    except ImportError:
        # Not built here, or built for another machine: the same signatures come from Python.
        return None

    # Registers rundiff.cbor, and refuses what has no signature in the same words as the other signer.
    from rundiff.signing import mixed  # noqa: F401
    from rundiff.signing.signable import names_survive, present_fields

    def sign_natively(
        batch: pa.RecordBatch, fields: Sequence[str], key: SigningKey | None = None
    ) -> SignedBatch:
        names = present_fields(batch.schema, fields)
        if not names_survive(batch.schema, names):
            return _python()(batch, names, key)
        secret = None if key is None else key.secret
        signatures, unsignable = extension.sign(batch.select(names), names, secret)
        return SignedBatch(pa.array(signatures), [Unsignable(*entry) for entry in unsignable])

    return sign_natively
