"""Where the secret for keyed signatures comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rundiff.errors import ConfigurationError
from rundiff.signing.contract import SigningKey

__all__ = ["KEY_FILE_VARIABLE", "KEY_VARIABLE", "SHORTEST_KEY", "load_signing_key"]

KEY_VARIABLE = "RUNDIFF_SIGNING_KEY"
KEY_FILE_VARIABLE = "RUNDIFF_SIGNING_KEY_FILE"
SHORTEST_KEY = 16
"""In bytes; RFC 2104 advises keys no shorter than the digest, 32."""


def load_signing_key(environ: Mapping[str, str]) -> SigningKey | None:
    """Load the signing key that the environment gives, or None if it gives none.

    `RUNDIFF_SIGNING_KEY` holds the secret itself; `RUNDIFF_SIGNING_KEY_FILE` names a file that holds
    it, whose last line break does not count. Raises `ConfigurationError` if both are set, the file
    can't be read, or the key is shorter than 16 bytes; the secret is in no message.
    """
    secret, path = environ.get(KEY_VARIABLE), environ.get(KEY_FILE_VARIABLE)
    if secret is not None and path is not None:
        raise ConfigurationError(f"{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set; set only one of them")
    if secret is not None:
        return _checked(os.fsencode(secret), KEY_VARIABLE)
    if path is not None:
        return _checked(_read(path), f"the file of {KEY_FILE_VARIABLE}")
    return None


def _read(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"the file that {KEY_FILE_VARIABLE} names, {path!r}, can't be read ({reason}); "
            f"mend the path or its rights"
        ) from error
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _checked(secret: bytes, origin: str) -> SigningKey:
    if len(secret) < SHORTEST_KEY:
        state = "is empty" if not secret else f"has only {len(secret)} bytes"
        raise ConfigurationError(
            f"the signing key in {origin} {state}; give at least {SHORTEST_KEY}, better 32 random ones"
        )
    return SigningKey(secret)
