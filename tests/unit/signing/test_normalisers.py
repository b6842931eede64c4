"""Each normaliser on each type that it fits, with the values that it is for; and the types that it doesn't fit."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rundiff.errors import ConfigurationError
from rundiff.signing import mixed
from rundiff.signing.reference import signature
from tests.unit.signing.normaliser_tools import prepared, prepared_values, told
from tests.unit.signing.signers import SIGNERS, signer_of

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("array", "words", "wanted"),
    [
        (pa.array([1.00004, 1.00006, -1.00006, None]), "round(4)", [1.0, 1.0001, -1.0001, None]),
        (pa.array([0.5, 1.5, 2.5, -0.5]), "round(0)", [0.0, 2.0, 2.0, 0.0]),
        (pa.array([INFINITY, -INFINITY, 1e300, 2.0**60]), "round(4)", [INFINITY, -INFINITY, 1e300, 2.0**60]),
        (pa.array([1249.0, 1250.0, 1351.0]), "round(-2)", [1200.0, 1200.0, 1400.0]),
        (pa.array([0.1], pa.float32()), "round(4)", [0.1]),
        (pa.array([np.float16(0.1)], pa.float16()), "round(2)", [0.1]),
        (pa.array([1249, 1250, 1350, -1251, None]), "round(-2)", [1200, 1200, 1400, -1300, None]),
        (pa.array([2**63 - 1]), "round(-2)", [9223372036854775800]),
        (pa.array([2**64 - 1], pa.uint64()), "round(-1)", [18446744073709551620]),
        (pa.array([7, 9]), "round(3)", [7, 9]),
        (pa.array([Decimal("9.995"), Decimal("1.245")]), "round(2)", [Decimal("10.00"), Decimal("1.24")]),
        (pa.array([Decimal("1.2")]), "round(2)", [Decimal("1.2")]),
        (pa.array([Decimal("1250")]), "round(-2)", [Decimal("1200")]),
        (pa.array([1.02, 1.03, 1.08]), "quantize(0.05)", [1.0, 1.05, 1.1]),
        (pa.array([13, 12, 37]), "quantize(25)", [25, 0, 25]),
        (pa.array([1, 2, 3]), "quantize(2.5)", [0, Decimal("2.5"), Decimal("2.5")]),
        (pa.array([Decimal("1.03")]), "quantize(0.05)", [Decimal("1.05")]),
        (pa.array([{"lat": 1.234, "name": "x"}, None]), "round(1)", [{"lat": 1.2, "name": "x"}, None]),
        (pa.array([[[1.26, 2.24], None], None, []]), "round(1)", [[[1.3, 2.2], None], None, []]),
        (pa.array([[("a", 1.26)]], pa.map_(pa.string(), pa.float64())), "round(1)", [[("a", 1.3)]]),
        (pa.array([1.26, 2.0, 1.26]).dictionary_encode(), "round(1)", [1.3, 2.0, 1.3]),
        (pa.array([1.26, None]).slice(1), "round(1)", [None]),
        (pa.nulls(2), "round(1)", [None, None]),
        (pa.array([None, None], pa.list_(pa.null())), "round(1)", [None, None]),
        (pa.array([" a\u3000", "\tb\n", None, ""]), "trim", ["a", "b", None, ""]),
        (pa.array([" a "], pa.large_string()), "trim", ["a"]),
        (pa.array([" a "], pa.string_view()), "trim", ["a"]),
        (pa.array([[" a ", None], None]), "trim", [["a", None], None]),
        (pa.array(["Straße", "ΣΊΣΥΦΟΣ", "Ada", None]), "casefold", ["strasse", "σίσυφοσ", "ada", None]),
        (
            pa.array(["".join(map(chr, range(32))) + "É", "Ä"]),
            "casefold",
            ["".join(map(chr, range(32))) + "é", "ä"],
        ),
        (pa.array([" É "]), "trim|casefold", ["é"]),
        (pa.array([[3, 1, 2], None, [1, None, 1]]), "unordered", [[1, 2, 3], None, [1, 1, None]]),
        (pa.array([["b", "a"], []]), "unordered", [["a", "b"], []]),
        (pa.array([[[2, 1], [1, 2]]]), "unordered", [[[1, 2], [2, 1]]]),
        (pa.array([[[2, 1], [0, 9, 8]]]), "unordered(deep)", [[[1, 2], [0, 8, 9]]]),
        (pa.array([{"tags": ["b", "a"], "n": 1}]), "unordered", [{"tags": ["a", "b"], "n": 1}]),
        (pa.array([[3, 1]], pa.list_(pa.int64(), 2)), "unordered", [[1, 3]]),
        (pa.array([[3, 1], [2, 1]], pa.large_list(pa.int64())).slice(1), "unordered", [[1, 2]]),
    ],
)
def test_values(array: pa.Array, words: str, wanted: list[Any]) -> None:
    assert prepared_values(array, words) == wanted


def test_not_a_number_stays() -> None:
    [value] = prepared_values(pa.array([NAN]), "round(2)")
    assert value != value  # noqa: PLR0124 -- only NaN differs from itself


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_points_in_time_are_cut_down(unit: str) -> None:
    moments = [
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        None,
    ]
    array = pa.array(moments, pa.timestamp(unit, "Europe/Berlin"))
    wanted = {
        "second": [moments[0], moments[1], None],
        "minute": [datetime(2024, 5, 6, 7, 8, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, tzinfo=UTC), None],
        "hour": [datetime(2024, 5, 6, 7, tzinfo=UTC), datetime(1969, 12, 31, 23, tzinfo=UTC), None],
        "day": [datetime(2024, 5, 6, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC), None],
    }
    for word, values in wanted.items():
        made = prepared(pa.record_batch({"value": array}), {"value": f"truncate({word})"}).column(0)
        assert made.cast(pa.timestamp(unit, "UTC")).equals(pa.array(values, pa.timestamp(unit, "UTC")))


def test_fractions_of_a_second_are_cut_off() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 123_456)  # noqa: DTZ001 -- a naive one on purpose
    assert prepared_values(pa.array([moment]), "truncate(second)") == [moment.replace(microsecond=0)]
    assert prepared_values(pa.array([moment]), "truncate(millisecond)") == [
        moment.replace(microsecond=123_000)
    ]
    assert prepared_values(pa.array([time(7, 8, 9, 5)]), "truncate(minute)") == [time(7, 8)]
    assert prepared_values(pa.array([time(7, 8, 9)], pa.time32("ms")), "truncate(hour)") == [time(7)]
    assert prepared_values(pa.array([timedelta(seconds=-1)]), "truncate(minute)") == [timedelta(minutes=-1)]


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_the_first_moment_of_all_has_no_whole_day_before_it(unit: str) -> None:
    array = pa.array([-(2**63), 2**63 - 1]).view(pa.timestamp(unit))
    made = prepared(pa.record_batch({"value": array}), {"value": "truncate(day)"}).column(0).view(pa.int64())
    day = 86_400 * {"s": 1, "us": 10**6, "ns": 10**9}[unit]
    assert made.to_pylist() == [-(2**63), (2**63 - 1) // day * day]


def json_value(text: str, words: str = "json") -> Any:
    return told(prepared(pa.record_batch({"value": [text]}), {"value": words}).column(0))[0]


def test_json_is_taken_by_its_value() -> None:
    assert json_value('{"b": [1.50, 2e0], "a": null}') == {"b": [Decimal("1.5"), 2]}
    assert json_value("null") is None
    assert json_value("0.1") == Decimal("0.1")
    # These two are one double, but not one number.
    assert json_value("0.1000000000000000055") != json_value("0.1")


@pytest.mark.parametrize("text", ["", "hello", '{"a":', "NaN", '{"a": 1, "a": 2}', '"\\ud800"', "[" * 99_999])
def test_text_that_is_no_json_is_like_no_json(text: str) -> None:
    assert json_value(text) == text.encode()


def test_normalisers_go_on_inside_of_json() -> None:
    assert json_value(
        '{"xy": [[1.26, 3], [1.24, 2]], "name": " A "}', "json|round(1)|unordered|trim|casefold"
    ) == {
        "xy": [[Decimal("1.2"), 2], [Decimal("1.3"), 3]],
        "name": "a",
    }
    assert json_value("[2.5, 3.5, -2.5, true]", "json|round(0)") == [2, 4, -2, True]
    assert json_value("[1e400, 1e-400]", "json|round(0)") == [Decimal("1e400"), 0]


def test_columns_of_mixed_types_are_taken_value_by_value() -> None:
    array = mixed.encode([" A ", 1.26, None, [2, 1], True])
    batch = pa.record_batch({"value": array})
    made = prepared(batch, {"value": "trim|round(1)|unordered"}).column(0)
    assert told(made) == ["A", 1.3, None, [1, 2], True]


@pytest.mark.parametrize("words", ["trim", "casefold"])
@pytest.mark.parametrize("name", SIGNERS)
def test_text_that_is_not_utf8_still_makes_its_record_unreadable(words: str, name: str) -> None:
    offsets = np.array([0, 2, 3, 5], np.int32)
    array = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"\xc3\x89A\xff\xfe")]
    )
    signed = signer_of(name)(prepared(pa.record_batch({"value": array}), {"value": words}), ["value"])
    assert [item.row for item in signed.unsignable] == [2]
    assert signed.signatures[1].as_py() == signature({"value": "a" if words == "casefold" else "A"})


@pytest.mark.parametrize(
    ("array", "words", "kind"),
    [
        (pa.array(["1.5"]), "round(1)", "text"),
        (pa.array([True]), "round(1)", "boolean"),
        (pa.array([datetime(2024, 1, 1)]), "round(1)", "timestamp[us]"),  # noqa: DTZ001 -- a naive one
        (pa.array(["1.5"]), "quantize(5)", "text"),
        (pa.array([1]), "trim", "integer"),
        (pa.array([b"a"]), "casefold", "binary"),
        (pa.array([[1]]), "trim", "list<item: int64>"),
        (pa.array(["x"]), "unordered", "text"),
        (pa.array([1.5]), "json", "double"),
        (pa.array([1]), "truncate(second)", "integer"),
        (pa.array([time(1)]), "truncate(day)", "time64[us]"),
        (pa.array([datetime(2024, 1, 1).date()]), "truncate(day)", "date32[day]"),  # noqa: DTZ001 -- as above
    ],
)
def test_a_type_that_does_not_fit_is_named(array: pa.Array, words: str, kind: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        prepared_values(array, words)
    assert (
        f"sync people: the normaliser {words} does not fit the field value, which has the type {kind}: it takes"
        in str(raised.value)
    )
    assert str(raised.value).endswith("Nothing was written")


def test_chunks_of_a_column_are_brought_to_one_form() -> None:
    chunks = pa.chunked_array([[1.26, None], [1.34]])
    made = [prepared_values(chunk, "round(1)") for chunk in chunks.chunks]
    assert made == [[1.3, None], [1.3]]


@pytest.mark.parametrize("words", ["round(2)", "quantize(0.3)", "round(-1)|unordered", "trim|round(1)"])
@pytest.mark.parametrize("name", SIGNERS)
def test_what_stands_beside_a_value_does_not_matter(words: str, name: str) -> None:
    # Values of one shape are brought to a plain type together, others are taken one by one.
    values = [
        7,
        2.567,
        [7, 1.234],
        [25.0, 15],
        {"a": [1.456, None]},
        " x ",
        [" x "],
        Decimal("1.005"),
        2**60,
        [2**60, 0.5],
    ]
    sign = signer_of(name)

    def signatures(*beside: Any) -> list[bytes]:
        batch = pa.record_batch({"value": mixed.encode(beside)})
        found: list[bytes] = sign(prepared(batch, {"value": words}), ["value"]).signatures.to_pylist()
        return found

    together = signatures(*values)
    for at, value in enumerate(values):
        assert signatures(value) == [together[at]]
        for other in values:
            assert signatures(value, other)[0] == together[at], (value, other)
