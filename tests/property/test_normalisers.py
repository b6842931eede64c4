"""Normalisers over Arrow arrays of every type and layout agree with plain Python, value by value."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundiff.errors import ConfigurationError
from rundiff.signing import mixed
from rundiff.signing.normalising import UNITS
from rundiff.signing.reference import encode, signature
from rundiff.signing.values import Duration, Timestamp
from tests.property.signing_arrays import PLAIN_KINDS, build, kinds, meaning, optional
from tests.unit.signing.normaliser_tools import prepared
from tests.unit.signing.signers import SIGNERS, signer_of

WIDE = Context(prec=600, rounding=ROUND_HALF_EVEN)
STEPS = {"round(-1)": "10", "round(0)": "1", "round(2)": "0.01"}
STEPS |= {f"quantize({step})": step for step in ("0.05", "0.3", "25")}
WORDS = [*STEPS, "truncate(day)", "truncate(hour)", "truncate(millisecond)", "trim", "casefold"]
WORDS += ["unordered", "unordered(deep)"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def relaxed(examples: int) -> settings:
    """Settings for strategies that draw whole arrays."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, deadline=None, suppress_health_check=slow)


def expected_number(value: Any, step: str) -> Any:
    """The nearest multiple of a step: exactly, but for doubles."""
    if isinstance(value, float):
        up, down = Decimal(step).as_integer_ratio()[::-1]
        steps = value * up / down
        return round(steps) * float(down) / up if abs(steps) < 2**53 else value
    number = Decimal(value)
    if not number.is_finite() or number.adjusted() > 150:
        return value
    return WIDE.multiply(WIDE.divide(number, Decimal(step)).to_integral_value(ROUND_HALF_EVEN), Decimal(step))


def expected_leaf(value: Any, word: str) -> Any:
    """A value that holds no others."""
    if word in STEPS and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return expected_number(value, STEPS[word])
    if word.startswith("truncate"):
        unit = UNITS[word[9:-1]]
        if isinstance(value, Timestamp | Duration):
            total = value.seconds * 10**9 + value.nanoseconds
            return type(value)(*divmod(total // unit * unit, 10**9))
        if isinstance(value, datetime):
            micro = (value - EPOCH) // timedelta(microseconds=1) * 1_000 // unit * unit // 1_000
            return EPOCH + timedelta(microseconds=micro)
        if isinstance(value, timedelta):
            micro = value // timedelta(microseconds=1) * 1_000 // unit * unit // 1_000
            return timedelta(microseconds=micro)
    if isinstance(value, str) and word in ("trim", "casefold"):
        return value.strip() if word == "trim" else value.casefold()
    return value


def expected_mixed(value: Any, word: str, *, top: bool = True) -> Any:
    """A Python value with all that it holds."""
    if isinstance(value, dict):
        return {name: expected_mixed(item, word, top=top) for name, item in value.items()}
    if isinstance(value, list):
        if not word.startswith("unordered"):
            return [expected_mixed(item, word) for item in value]
        deep = word == "unordered(deep)"
        items = [expected_mixed(item, word, top=False) if deep else item for item in value]
        return sorted(items, key=encode) if top or deep else items
    return expected_leaf(value, word)


def expected(kind: pa.DataType, raw: Any, word: str) -> Any:  # noqa: PLR0911 - one branch per kind
    """What a raw value of a type is brought to, by its type as the arrays go by theirs."""
    if raw is None:
        return None
    if isinstance(kind, mixed.MixedType):
        return expected_mixed(mixed.decode(mixed.encode([raw]))[0], word)
    if isinstance(kind, pa.BaseExtensionType):
        return meaning(kind, raw)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return expected(kind.value_type, raw, word)
    if pt.is_struct(kind):
        return {field.name: expected(field.type, raw[field.name], word) for field in kind}
    if pt.is_map(kind):
        return type(meaning(kind, []))(
            (meaning(kind.key_type, key), expected(kind.item_type, item, word)) for key, item in raw
        )
    if pt.is_nested(kind):
        if word == "unordered":
            return sorted((meaning(kind.value_type, item) for item in raw), key=encode)
        items = [expected(kind.value_type, item, word) for item in raw]
        return sorted(items, key=encode) if word == "unordered(deep)" else items
    value = meaning(kind, raw)
    if word == "truncate(day)" and pt.is_time(kind):
        return value
    if word.startswith("truncate") and (pt.is_timestamp(kind) or pt.is_duration(kind)):
        low = -(2**63) * (10**9 // {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit])
        made = expected_leaf(value, word)
        # What 64 bits can't hold stays as it is.
        return made if made.seconds * 10**9 + made.nanoseconds >= low else value
    return expected_leaf(value, word)


def agree(array: pa.Array, wanted: list[Any], word: str, signer: Any) -> None:
    batch = pa.RecordBatch.from_arrays([array], ["value"])
    try:
        made = prepared(batch, {"value": word})
    except ConfigurationError:
        # The oracle leaves alone what a normaliser does not fit, and the whole array has nothing that it fits.
        made = batch
    assert made.num_rows == batch.num_rows
    signed = signer(made, ["value"])
    assert list(signed.unsignable) == []
    assert signed.signatures.to_pylist() == [signature({"value": value}) for value in wanted]


def no_views(kind: pa.DataType) -> bool:
    """Whether a type holds no views, which sources don't hand on and Arrow can't take from yet."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if (
        pt.is_string_view(kind)
        or pt.is_binary_view(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
    ):
        return False
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return no_views(kind.value_type)
    return not pt.is_nested(kind) or all(no_views(kind.field(at).type) for at in range(kind.num_fields))


@relaxed(40)
@given(data=st.data(), kind=kinds.filter(no_views), word=st.sampled_from(WORDS))
def test_any_type_in_any_layout(data: Any, kind: pa.DataType, word: str) -> None:
    raws = data.draw(st.lists(optional(kind), min_size=1, max_size=6))
    try:
        array = build(data.draw, kind, raws)
    except pa.ArrowInvalid:
        # pyarrow refuses to run-end encode some values that other arrays may hold.
        return
    agree(array, [expected(kind, raw, word) for raw in raws], word, signer_of("python"))


@relaxed(3)
@pytest.mark.parametrize("kind", PLAIN_KINDS, ids=str)
@given(data=st.data())
def test_each_plain_type_with_either_signer(kind: pa.DataType, data: Any) -> None:
    raws = data.draw(st.lists(optional(kind), min_size=1, max_size=30))
    array = build(data.draw, kind, raws)
    for word in WORDS:
        for name in SIGNERS:
            agree(array, [expected(kind, raw, word) for raw in raws], word, signer_of(name))


@relaxed(60)
@given(
    texts=st.lists(
        st.none()
        | st.text(
            alphabet=st.characters(codec="utf-8") | st.sampled_from("  \t\x1c\x00ßİΣς\u017f\ufb00\u3000éÉ"),
            max_size=6,
        )
    ),
    word=st.sampled_from(["trim", "casefold", "trim|casefold"]),
)
def test_text_as_pythons_own_methods_take_it(texts: list[str | None], word: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], ["value"])
    made = prepared(batch, {"value": word}).column(0).to_pylist()
    for method in word.split("|"):
        function = {"trim": str.strip, "casefold": str.casefold}[method]
        texts = [None if text is None else function(text) for text in texts]
    assert made == texts


@relaxed(300)
@given(number=st.floats(allow_nan=False, allow_infinity=False), digits=st.integers(-5, 12))
def test_rounded_doubles_are_near_and_stay(number: float, digits: int) -> None:
    def rounded(value: float) -> float:
        batch = pa.RecordBatch.from_arrays([pa.array([value])], ["value"])
        made: float = prepared(batch, {"value": f"round({digits})"}).column(0)[0].as_py()
        return made

    made = rounded(number)
    assert rounded(made) == made
    steps = abs(number) * 10.0**digits
    if steps < 2**50:
        assert abs(made - number) <= 0.5000001 * 10.0**-digits + math.ulp(number)
        # Away from the middle of two multiples, as far as a double tells, it is Python's rounding, too.
        if abs(steps - math.floor(steps) - 0.5) > max(1e-3, 2 * math.ulp(steps)):
            assert made == pytest.approx(round(number, digits), rel=1e-15, abs=0)
    else:
        assert made == pytest.approx(number, rel=1e-15, abs=0)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def spelled(value: Any, draw: Any) -> str:
    """Write a JSON value in one of the ways that there are."""
    gap = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, dict):
        members = draw(st.permutations(list(value.items())))
        return "{" + f",{gap}".join(f"{spelled(k, draw)}:{gap}{spelled(v, draw)}" for k, v in members) + "}"
    if isinstance(value, list):
        return "[" + f"{gap},".join(spelled(item, draw) for item in value) + gap + "]"
    if isinstance(value, Decimal):
        return draw(st.sampled_from([f"{value:f}", f"{value:f}000", f"{value:e}", f"{value * 1000:f}e-3"]))
    if isinstance(value, int) and not isinstance(value, bool):
        return draw(st.sampled_from([str(value), f"{value}.0", f"{value}e0"]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@relaxed(60)
@given(data=st.data(), values=st.lists(json_values, min_size=1, max_size=4))
def test_json_by_value_however_it_is_spelled(data: Any, values: list[Any]) -> None:
    texts = [spelled(value, data.draw) for value in values]
    batch = pa.RecordBatch.from_arrays([pa.array(texts)], ["value"])
    made = prepared(batch, {"value": "json"})
    for name in SIGNERS:
        signatures = signer_of(name)(made, ["value"]).signatures.to_pylist()
        assert signatures == [signature({"value": value}) for value in values]


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@given(
    text=st.text(max_size=12)
    | st.sampled_from(["NaN", "1e999999999999999999999", '{"a":1,"a":1}', "[" * 9999])
)
def test_no_text_breaks_json(text: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([text, None])], ["value"])
    made = mixed.decode(prepared(batch, {"value": "json"}).column(0))
    try:
        wanted = json.loads(text, parse_float=Decimal, parse_constant=no_constant)
    except (ValueError, ArithmeticError, RecursionError):
        wanted = text.encode()
    if '"a":1,' in text:
        # A name that stands twice has no one value.
        wanted = text.encode()
    assert made == [wanted, None]
