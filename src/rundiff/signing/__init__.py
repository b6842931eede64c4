"""Signatures of records (design section 3): the specification, and signers for batches."""

from __future__ import annotations

from rundiff.signing.choice import sign, sign_both, signer_name
from rundiff.signing.contract import FORMAT_VERSION, SignedBatch, Signer, SigningKey, Unsignable
from rundiff.signing.keys import load_signing_key
from rundiff.signing.reference import UnsignableValue, signature

__all__ = [
    "FORMAT_VERSION",
    "SignedBatch",
    "Signer",
    "SigningKey",
    "Unsignable",
    "UnsignableValue",
    "load_signing_key",
    "sign",
    "sign_both",
    "signature",
    "signer_name",
]
