"""SHA-256 and HMAC of columns, by both ways of computing them, against published vectors."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from rundiff.signing import digest

NIST = [
    # FIPS 180-4 examples and the empty message of NIST's SHAVS
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]

RFC_4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        (
            b"This is a test using a larger than block-size key and a larger than block-size data. "
            b"The key needs to be hashed before being used by the HMAC algorithm."
        ),
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.fixture(params=[0, 210_000], ids=["one by one", "by query"])
def company(request: pytest.FixtureRequest) -> int:
    """How many other messages go along: many of them go to DuckDB."""
    return int(request.param)


def digest_of(message: bytes, company: int, key: bytes | None = None) -> str:
    others = pa.array([b""] * company, pa.large_binary())
    found = digest.digests([others, pa.array([message], pa.large_binary())], key)
    assert len(found) == 32 * (company + 1)
    return found[-32:].hex()


@pytest.mark.parametrize(("message", "expected"), NIST, ids=["empty", "3 bytes", "56 bytes", "a million"])
def test_sha256(message: bytes, expected: str, company: int) -> None:
    assert digest_of(message, company) == expected


@pytest.mark.parametrize(
    ("key", "message", "expected"), RFC_4231, ids=[f"case {number}" for number in (1, 2, 3, 4, 6, 7)]
)
def test_hmac(key: bytes, message: bytes, expected: str, company: int) -> None:
    assert digest_of(message, company, key) == expected


@pytest.mark.parametrize("key", [None, b"0123456789abcdef"])
def test_order_and_offsets_are_kept(key: bytes | None) -> None:
    messages = [str(number).encode() for number in range(250_000)]
    whole = pa.array(messages, pa.large_binary())
    found = digest.digests([whole.slice(0, 7), whole.slice(7, 120_000), whole.slice(120_007)], key)
    expected = [
        hmac.digest(key, text, "sha256") if key else hashlib.sha256(text).digest() for text in messages
    ]
    assert found == b"".join(expected)


def test_threads_do_not_meet() -> None:
    def run(seed: int) -> bool:
        messages = [f"{seed}/{number}".encode() for number in range(20_000)]
        expected = b"".join(hashlib.sha256(text).digest() for text in messages)
        return digest.digests([pa.array(messages, pa.large_binary())], None) == expected

    import duckdb  # noqa: F401 - once it is loaded, batches of this size go to it

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(16)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_gets_an_engine_of_its_own() -> None:
    code = (
        "import os, pyarrow as pa\n"
        "from rundiff.signing import digest\n"
        "work = lambda: digest.digests([pa.array([b'abc'] * 250_000, pa.large_binary())], None)[:32].hex()\n"
        "first = work()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if work() == first else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_few_messages_do_not_import_duckdb() -> None:
    code = (
        "import sys, pyarrow as pa\n"
        "from rundiff.signing import sign\n"
        "sign(pa.record_batch({'a': list(range(10_000))}), ['a'])\n"
        "raise SystemExit('duckdb' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=False, env=os.environ | {"RUNDIFF_NATIVE": "0"}
    )
    assert done.returncode == 0
