"""JSON text a batch at a time gives the very encodings that it gives one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.signing import jsontext
from rundiff.signing.jsontext import encode_texts
from rundiff.signing.normalised import encoded_json
from rundiff.signing.reference import encode

NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1",
    "-1",
    "1.0",
    "1.50",
    "15e-1",
    "1E5",
    "-1e+5",
    "0.1",
    "1e400",
    "-1e-400",
    "1e99999",
    "1e9999999999999999999",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0." + "0" * 40 + "1",
    "1." + "3" * 50,
    "9" * 38 + ".5",
    "9" * 80 + ".25",
    "1" * 400,
    "1" * 5000,
    "-" + "7" * 5000,
    "12345678901234567.25",
    "99999999999999999999.5",
]
NAUGHTY = [
    "",
    " ",
    "nul",
    "null",
    " null ",
    "true",
    "NaN",
    "Infinity",
    "-Infinity",
    '{"a":NaN}',
    "01",
    "1.",
    ".5",
    "+1",
    "--1",
    "[1,]",
    "[",
    "]",
    "[]",
    "{}",
    "{,}",
    '{"a"}',
    '{"a":}',
    "{a:1}",
    "'a'",
    "/**/1",
    "1 2",
    "\ufeff1",
    "\x0b1",
    "\xa01",
    r'"\ud800"',
    r'"\udc00"',
    r'"\ud83d\ude00"',
    r'"\ud800\u0041"',
    r'"\x"',
    r'"\u12"',
    '"\x01"',
    '"\x7f"',
    r'"\u0000"',
    r'"\/"',
    '{"a":1,"a":1}',
    '{"a":1,"a":2}',
    '{"a":null,"a":1}',
    '[{"a":1},{"a":1,"a":1}]',
    '{"a":{"b":1,"b":2}}',
    '{"":1,"":2}',
    r'{"a":1,"\u0061":2}',
    r'{"a:":"\u003a","a:":1}',
    r'{"a":"\u003a","a":1}',
    r'{"a":"\u003A\u003A","a":1,"a":2}',
    '{"a":"x:y","a":"z"}',
    '{"a:b":1,"a:b":2}',
    '{"a":":","b":"::"}',
    '{"a" : 1 ,\n"b"\t:\r2}',
    '{"a":null}',
    '{"a":[null]}',
    '{"a":{}}',
    '{"a":{"b":null}}',
    '{"a":[]}',
    "[[],[[]],null]",
    '{"a\\u0000b":1}',
    '{"a\\u0000b":1,"a\\u0000c":2}',
    '{"é":"é"}',
    "[" * 63 + "]" * 63,
    "[" * 66 + "]" * 66,
    "[" * 300 + "]" * 300,
    '{"a":' * 100 + "1" + "}" * 100,
    "[" * 100_000,
    '[1,"1",1.5,true,null,{"a":1.50}]',
    "[true,1]",
    "[1,true,1.0]",
    '{"t":"1.5"}',
    '[1.5,"1.5"]',
]

texts = st.one_of(
    st.text(st.sampled_from('a:"\\é\0 {}[],u003'), max_size=5), st.sampled_from(["a", "b", "::", "id"])
)


@st.composite
def spelled(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON as some writer may spell it, with names that may occur twice."""
    kind = draw(
        st.sampled_from(
            ["number", "text", "word", "list", "object", "object"] if depth else ["number", "text"]
        )
    )
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    if kind == "number":
        return draw(
            st.sampled_from(NUMBERS)
            | st.integers().map(str)
            | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        )
    if kind == "word":
        return draw(st.sampled_from(["null", "true", "false"]))
    if kind == "text":
        return json.dumps(draw(texts), ensure_ascii=draw(st.booleans()))
    inner = draw(st.lists(spelled(depth - 1), max_size=4))
    if kind == "list":
        return f"[{space}{f',{space}'.join(inner)}{space}]"
    names = [json.dumps(draw(texts)) for _ in inner]
    members = [f"{name}{space}:{space}{item}" for name, item in zip(names, inner, strict=True)]
    return "{" + f",{space}".join(members) + space + "}"


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """JSON with a character more, less or changed."""
    text = draw(spelled())
    at = draw(st.integers(0, len(text)))
    return (
        text[:at]
        + draw(st.sampled_from(["", ",", ":", '"', "\\", "e", "0", "}", "\x00"]))
        + text[at + draw(st.integers(0, 1)) :]
    )


def one_by_one(given: list[bytes]) -> list[bytes]:
    def one(text: bytes) -> bytes:
        try:
            return encoded_json(text.decode())
        except (ValueError, ArithmeticError, RecursionError):
            return encode(text)

    return [one(text) for text in given]


@given(st.lists(st.one_of(spelled(), spelled(), damaged(), st.sampled_from(NAUGHTY)), max_size=12))
def test_a_batch_is_encoded_like_each_text(given_texts: list[str]) -> None:
    given_bytes = [text.encode() for text in given_texts]
    assert encode_texts(given_bytes) == one_by_one(given_bytes)


def test_naughty_texts_one_by_one_and_among_plain_ones() -> None:
    naughty = [
        *(text.encode() for text in (*NAUGHTY, *NUMBERS)),
        b'"\xff"',
        b"\xff",
        b'{"a":"\xc3"}',
        b'"\xed\xa0\x80"',
    ]
    wanted = one_by_one(naughty)
    for text, encoding in zip(naughty, wanted, strict=True):
        assert encode_texts([text]) == [encoding]
    assert encode_texts(naughty) == wanted
    plain = [json.dumps({"id": n, "v": [n / 8, None], "t": "10:30"}).encode() for n in range(300)]
    among = [item for pair in zip(plain, naughty * 9, strict=False) for item in pair]
    assert encode_texts(among) == one_by_one(among)


@pytest.mark.parametrize("bad", [None, '{"id": 1, "id": 2}', '{"id": ' + "9" * 50 + "}", '{"id": "x"}', "1"])
def test_texts_of_one_shape_do_not_go_one_by_one(monkeypatch: pytest.MonkeyPatch, bad: str | None) -> None:
    given_bytes = [
        json.dumps(
            {"id": n, "price": n / 100, "at": "2024-01-01T10:00:00", "tags": ["a"] * (n % 3), "note": None}
        ).encode()
        for n in range(2000)
    ]
    if bad is not None:
        given_bytes[1234] = bad.encode()
    wanted = one_by_one(given_bytes)
    taken = 0
    slow: Any = jsontext._one

    def counted(text: bytes) -> bytes:
        nonlocal taken
        taken += 1
        result: bytes = slow(text)
        return result

    monkeypatch.setattr(jsontext, "_one", counted)
    assert encode_texts(given_bytes) == wanted
    # A text that can't go with the others takes its nearest neighbours along at most.
    assert taken <= (0 if bad is None else jsontext.FEW)
