"""Read the conditions of `deleted_when`.

DuckDB's parser reads them, and only its syntax tree is used: nothing of it is ever executed as SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rundiff.compare.marks import Condition
from rundiff.errors import ConfigurationError

__all__ = ["parse_condition"]

_COMPARISONS = {"COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>"}
_NULLNESS = {"OPERATOR_IS_NULL": "is null", "OPERATOR_IS_NOT_NULL": "is not null"}
_JUNCTIONS = {"CONJUNCTION_AND": "and", "CONJUNCTION_OR": "or", "OPERATOR_NOT": "not"}


def parse_condition(text: str) -> Condition:
    """Read a condition; raises `ConfigurationError` for anything that is not one."""
    import duckdb

    query = "SELECT 1 WHERE (" + text + "\n)"
    try:
        # A connection of its own: the module's is the caller's, who may be in the midst of a result.
        with duckdb.connect() as connection:
            found = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    except duckdb.Error as error:
        raise _refused(text, "it can't be parsed") from error
    tree: dict[str, Any] = json.loads(found[0]) if found else {"error": True}
    statements = tree.get("statements", [])
    if tree.get("error") or len(statements) != 1:
        raise _refused(text, "it is no condition in SQL")
    node = statements[0]["node"]
    plain = node.get("type") == "SELECT_NODE" and node["from_table"].get("type") == "EMPTY"
    others = (
        node.get("group_expressions") or node.get("having") or node.get("modifiers") or node.get("qualify")
    )
    if not plain or others or node.get("where_clause") is None:
        raise _refused(text, "it is more than a condition")
    return _translated(node["where_clause"], text)


def _refused(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"deleted_when can't be {text!r}: {why}. Write FIELD is null, FIELD is not null, FIELD = 'text', "
        "FIELD != 5, or a field of truth values, and combine these by and, or, not"
    )


def _translated(node: Mapping[str, Any], text: str) -> Condition:
    kind = node.get("type", "")
    if kind in _JUNCTIONS:
        return Condition(
            _JUNCTIONS[kind], parts=tuple(_translated(child, text) for child in node["children"])
        )
    if kind in _NULLNESS:
        return Condition(_NULLNESS[kind], _field(node["children"][0], text))
    if kind in _COMPARISONS:
        left, right = node["left"], node["right"]
        if left.get("type") != "COLUMN_REF":
            left, right = right, left
        return Condition(_COMPARISONS[kind], _field(left, text), _constant(right, text))
    return Condition("true", _field(node, text))


def _field(node: Mapping[str, Any], text: str) -> str:
    if node.get("type") != "COLUMN_REF" or len(node["column_names"]) != 1:
        raise _refused(text, "it compares something else than a field and a value")
    return str(node["column_names"][0])


def _constant(node: Mapping[str, Any], text: str) -> bool | int | Decimal | str:
    literal = node.get("literal") or {}
    kind, spelling = literal.get("kind"), str(literal.get("text"))
    if node.get("type") == "VALUE_CONSTANT" and kind in ("STRING", "INTEGER", "NUMERIC", "BOOLEAN"):
        if kind == "STRING":
            return spelling
        if kind == "BOOLEAN":
            return spelling.lower() in ("true", "t", "1")
        number = Decimal(spelling)
        return int(number) if number == number.to_integral_value() else number
    raise _refused(text, "it compares a field with something else than a text, a number, true or false")
