"""The signers that every suite of signatures runs on."""

from __future__ import annotations

import os

from rundiff.signing.choice import available_signers
from rundiff.signing.contract import Signer

SIGNERS: list[str] = ["python", "native"]
if "native" not in available_signers() and os.environ.get("RUNDIFF_REQUIRE_NATIVE") != "1":
    SIGNERS.remove("native")


def signer_of(name: str) -> Signer:
    """Fails where the native signer is required and missing."""
    signers = {str(known): signer for known, signer in available_signers().items()}
    assert name in signers, "RUNDIFF_REQUIRE_NATIVE=1, but rundiff._native can't be imported"
    return signers[name]
