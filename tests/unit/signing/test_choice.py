"""Which signer is used, and that asking for it stays cheap."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

from rundiff.signing import sign, signature, signer_name
from rundiff.signing.choice import available_signers


def run(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_the_native_signer_is_used_where_it_is_built() -> None:
    best = "native" if "native" in available_signers() else "python"
    assert run("import rundiff.signing as s; print(s.signer_name())", RUNDIFF_NATIVE="") == best
    assert signer_name() in available_signers()


def test_it_can_be_turned_off() -> None:
    assert run("import rundiff.signing as s; print(s.signer_name())", RUNDIFF_NATIVE="0") == "python"


def test_whatever_is_used_signs() -> None:
    batch = pa.record_batch({"id": [1], "name": ["Ada"]})
    assert sign(batch, ["id", "name"]).signatures.to_pylist() == [signature({"id": 1, "name": "Ada"})]


@pytest.mark.parametrize("module", ["duckdb", "pyarrow.compute", "pandas", "cbor2", "rundiff.signing.arrow"])
def test_the_package_imports_nothing_heavy(module: str) -> None:
    assert run(f"import sys, rundiff.signing; print({module!r} in sys.modules)") == "False"
