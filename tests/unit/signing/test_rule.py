"""Rules in words: what makes two of them one, and how a difference is told."""

from __future__ import annotations

from rundiff.signing.rule import Form, Rule

PLAIN = Rule(fields=("id", "name"))


def test_order_does_not_make_another_rule() -> None:
    form = Form(exclude=("a.b", "c.d"), normalize={"x": "trim", "y": "round(2)"})
    other = Form(exclude=("c.d", "a.b"), normalize={"y": "round(2)", "x": "trim"})
    one, two = Rule(fields=("id", "x"), form=form), Rule(fields=("x", "id"), form=other)
    assert one.identity == two.identity
    assert one.differs(two) == []


def test_each_part_makes_another_rule() -> None:
    others = [
        Rule(fields=("id",)),
        Rule(fields=("id", "name"), form=Form(exclude=("a.b",))),
        Rule(fields=("id", "name"), form=Form(include=("a.b",))),
        Rule(fields=("id", "name"), form=Form(normalize={"name": "trim"})),
        Rule(fields=("id", "name"), signing_key_id="0123456789abcdef"),
        Rule(fields=("id", "name"), signature_format=2),
    ]
    assert len({rule.identity for rule in (PLAIN, *others)}) == 7
    assert [len(PLAIN.differs(rule)) for rule in others] == [1] * 6


def test_the_order_of_a_chain_counts() -> None:
    one = Rule(fields=("id",), form=Form(normalize={"id": "trim|casefold"}))
    two = Rule(fields=("id",), form=Form(normalize={"id": "casefold|trim"}))
    assert one.identity != two.identity


def test_the_difference_is_named() -> None:
    form = Form(normalize={"lat": "round(4)"}, exclude=("meta.seen",))
    other = Rule(fields=("id", "lat"), form=form, signing_key_id="0123456789abcdef")
    assert other.differs(PLAIN) == [
        "the compared fields (lat, name)",
        "the included or excluded paths",
        "the normalisers of lat",
        "the signing key",
    ]
