"""Where the signing key comes from, and that it stays secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from rundiff.errors import ConfigurationError
from rundiff.signing import SigningKey, load_signing_key
from rundiff.signing.keys import load_former_key

SECRET = "a secret of 20 bytes"  # noqa: S105 - made up for these tests


def test_without_variables_there_is_no_key() -> None:
    assert load_signing_key({}) is None


def test_the_variable_holds_the_secret_as_it_is() -> None:
    assert load_signing_key({"RUNDIFF_SIGNING_KEY": SECRET + "\n"}) == SigningKey(SECRET.encode() + b"\n")
    assert load_signing_key({"RUNDIFF_SIGNING_KEY": "ü" * 8}) == SigningKey("ü".encode() * 8)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_the_last_line_break_of_a_file_does_not_count(tmp_path: Path, ending: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\x00\xff" * 16 + b"\n" + ending)
    key = load_signing_key({"RUNDIFF_SIGNING_KEY_FILE": str(path)})
    expected = b"\x00\xff" * 16 + (b"\n" if ending else b"")
    assert key == SigningKey(expected)


@pytest.mark.parametrize("short", ["", "x", "fifteen bytes .", "\n"])
def test_short_keys_are_refused_without_being_shown(tmp_path: Path, short: str) -> None:
    path = tmp_path / "key"
    path.write_text(short)
    for environ in ({"RUNDIFF_SIGNING_KEY": short}, {"RUNDIFF_SIGNING_KEY_FILE": str(path)}):
        with pytest.raises(ConfigurationError, match="at least 16") as caught:
            load_signing_key(environ)
        assert len(short) < 2 or short not in str(caught.value)


def test_both_variables_are_one_too_many(tmp_path: Path) -> None:
    environ = {"RUNDIFF_SIGNING_KEY": SECRET, "RUNDIFF_SIGNING_KEY_FILE": str(tmp_path / "key")}
    with pytest.raises(ConfigurationError, match="both set") as caught:
        load_signing_key(environ)
    assert SECRET not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent.*No such file"):
        load_signing_key({"RUNDIFF_SIGNING_KEY_FILE": str(tmp_path / "absent")})
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_signing_key({"RUNDIFF_SIGNING_KEY_FILE": str(tmp_path)})


def test_keys_are_told_apart_without_being_shown() -> None:
    key, other = SigningKey(SECRET.encode()), SigningKey(SECRET.encode() + b"!")
    assert key.id != other.id
    assert len(bytes.fromhex(key.id)) == 8
    assert SECRET not in repr(key)
    assert key.id not in SECRET.encode().hex()


def test_the_former_key_may_be_named_or_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(SECRET + "\n")
    assert load_former_key({}) is None
    assert load_former_key({"RUNDIFF_SIGNING_KEY_FORMER": ""}) == b""
    assert load_former_key({"RUNDIFF_SIGNING_KEY_FORMER": SECRET}) == SECRET.encode()
    assert load_former_key({"RUNDIFF_SIGNING_KEY_FORMER_FILE": str(path)}) == SECRET.encode()
    with pytest.raises(ConfigurationError, match="RUNDIFF_SIGNING_KEY_FORMER has only 5 bytes"):
        load_former_key({"RUNDIFF_SIGNING_KEY_FORMER": "short"})
    with pytest.raises(ConfigurationError, match="both set"):
        load_former_key({"RUNDIFF_SIGNING_KEY_FORMER": SECRET, "RUNDIFF_SIGNING_KEY_FORMER_FILE": str(path)})
