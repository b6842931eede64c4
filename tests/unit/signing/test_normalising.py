"""Normalisers in words: what is understood, and the sentences where it is not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rundiff.engine.forming import preparation_of_form
from rundiff.errors import ConfigurationError
from rundiff.signing.rule import Form
from tests.unit.signing.normaliser_tools import preparation, prepared_values


def first_letter(array: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(array, 0, 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("round(4)", "round(4)"),
        ("round( +2 )", "round(2)"),
        ("round(-2)", "round(-2)"),
        ("quantize(.050)", "quantize(0.05)"),
        ("quantize(25.0)", "quantize(25)"),
        ("truncate(second)", "truncate(second)"),
        (" trim | casefold ", "trim|casefold"),
        (["trim", "casefold"], "trim|casefold"),
        (["json|unordered(deep)"], "json|unordered(deep)"),
        ("math:floor", "math:floor"),
        (first_letter, f"{__name__}:first_letter"),
        (["trim", first_letter], f"trim|{__name__}:first_letter"),
        (lambda array: array, f"{__name__}:<lambda>"),
    ],
)
def test_words_are_kept_in_one_spelling(given: Any, words: str) -> None:
    assert preparation({"field": given}).form == Form(normalize={"field": words})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("roun(4)", "'roun(4)' is no normaliser; known are round(n)"),
        ("", "'' is no normaliser"),
        ("trim||casefold", "'' is no normaliser"),
        ("trim(2)", "is no normaliser"),
        ("round", "round takes a number of digits"),
        ("round(23)", "from -22 to 22"),
        ("round(1.5)", "round takes a number of digits"),
        ("quantize(0)", "quantize takes a step above 0"),
        ("quantize(-1)", "quantize takes a step above 0"),
        ("quantize(1e-3)", "quantize takes a step above 0"),
        ("truncate(week)", "truncate takes day, hour, minute, second, millisecond, microsecond"),
        ("unordered(all)", "is no normaliser"),
        ("no_such_module:function", "can't be imported"),
        ("math:pi", "which is no function"),
        ([], "names no normaliser"),
        ([3], "texts and Python functions only"),
        (3, "must be text such as round"),
    ],
)
def test_what_means_nothing_is_refused_by_name(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        preparation({"lat": given})
    assert "sync people: normalize of lat" in str(raised.value)
    assert said in str(raised.value)


def test_a_key_field_has_no_normaliser() -> None:
    with pytest.raises(ConfigurationError, match="normalize names id, a field of the primary key"):
        preparation({"id": "trim"})


def test_the_form_of_a_baseline_is_readied_from_its_words() -> None:
    asked = preparation({"name": first_letter, "city": ["trim", first_letter]})
    assert preparation_of_form(asked.form, asked) is asked
    before = Form(normalize={"name": f"trim|{__name__}:first_letter", "lat": "round(2)"}, exclude=("a.b",))
    former = preparation_of_form(before, asked)
    assert (former.form, former.primary_key) == (before, asked.primary_key)
    batch = pa.record_batch({"name": [" Ada"], "lat": [1.239], "a": [{"b": 1, "c": 2}]})
    assert former.applied(batch, batch.schema.names).to_pylist() == [
        {"name": "A", "lat": 1.24, "a": {"b": None, "c": 2}}
    ]


def test_a_function_of_the_baseline_that_is_gone_is_named() -> None:
    before = Form(normalize={"name": "gone_module:function"})
    said = (
        "as the baseline was signed, names the function gone_module:function.*Put it back until one full run"
    )
    with pytest.raises(ConfigurationError, match=said):
        preparation_of_form(before, preparation())


def test_a_function_takes_an_array_and_gives_one() -> None:
    assert prepared_values(pa.array(["Ada", None, "Bo"]), first_letter) == ["A", None, "B"]
    assert prepared_values(pa.array([" Ada"]), ["trim", first_letter]) == ["A"]
    assert prepared_values(pa.array([1, 2]), lambda array: pa.chunked_array([array[:1], array[1:]])) == [1, 2]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda array: array[:1], "gave 1 values for an Arrow array of 2"),
        (lambda array: array.to_pylist(), "gave a list for an Arrow array of 2"),
        (lambda array: len(array) / 0, "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_breaks_its_word_is_named(function: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        prepared_values(pa.array([1, 2]), function)
    assert f"the normaliser {__name__}:<lambda> of the field value {said}" in str(raised.value)
