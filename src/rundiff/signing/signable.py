"""Which Arrow types have signatures; asked once a batch, before any value is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from pyarrow import lib

from rundiff.errors import ConfigurationError

__all__ = ["KNOWN_EXTENSIONS", "names_survive", "present_fields"]

KNOWN_EXTENSIONS = frozenset({"arrow.uuid", "arrow.json", "arrow.bool8", "rundiff.cbor"})

_PLAIN = frozenset(
    {
        lib.Type_NA,
        lib.Type_BOOL,
        lib.Type_INT8,
        lib.Type_INT16,
        lib.Type_INT32,
        lib.Type_INT64,
        lib.Type_UINT8,
        lib.Type_UINT16,
        lib.Type_UINT32,
        lib.Type_UINT64,
        lib.Type_HALF_FLOAT,
        lib.Type_FLOAT,
        lib.Type_DOUBLE,
        lib.Type_DECIMAL32,
        lib.Type_DECIMAL64,
        lib.Type_DECIMAL128,
        lib.Type_DECIMAL256,
        lib.Type_DATE32,
        lib.Type_DATE64,
        lib.Type_TIME32,
        lib.Type_TIME64,
        lib.Type_TIMESTAMP,
        lib.Type_DURATION,
        lib.Type_INTERVAL_MONTH_DAY_NANO,
        lib.Type_STRING,
        lib.Type_LARGE_STRING,
        lib.Type_STRING_VIEW,
        lib.Type_BINARY,
        lib.Type_LARGE_BINARY,
        lib.Type_BINARY_VIEW,
        lib.Type_FIXED_SIZE_BINARY,
    }
)
_LISTS = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)


def present_fields(schema: pa.Schema, fields: Sequence[str]) -> list[str]:
    """Give those of `fields` that the schema has, each once, if all of them can be signed.

    Raises `ConfigurationError` that names a field of a type without signature, or that occurs twice.
    """
    present = []
    for name in dict.fromkeys(fields):
        places = schema.get_all_field_indices(name)
        if len(places) > 1:
            raise ConfigurationError(
                f"the field {name!r} occurs {len(places)} times; give each field its own name"
            )
        if places:
            field = schema.field(places[0])
            if refused := _refused(field):
                raise ConfigurationError(
                    f"the field {name!r} can't be signed, because {refused}; "
                    f"exclude it, or bring it to a plain type in the source"
                )
            present.append(name)
    return present


def names_survive(schema: pa.Schema, fields: Sequence[str]) -> bool:
    """Say whether the names inside nested fields come through Arrow's C data interface as they are.

    It hands names over as C strings, which end at the first NUL
    (https://arrow.apache.org/docs/format/CDataInterface.html#structure-definitions).
    """
    kinds = (schema.field(name).type for name in fields)
    return not any(_holds_nul(kind) for kind in kinds if pt.is_nested(kind) or pt.is_dictionary(kind))


def _holds_nul(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return _holds_nul(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) or not pt.is_nested(kind):
        return False
    members = [kind.field(number) for number in range(kind.num_fields)]
    return any("\0" in member.name or _holds_nul(member.type) for member in members)


def _refused(field: pa.Field) -> str | None:
    """Say what about a field has no signature, or None."""
    extension = (field.metadata or {}).get(b"ARROW:extension:name")
    if extension is not None:
        name = extension.decode("utf-8", "replace")
        # pyarrow hides the metadata of extensions that it knows: this one came as its bare storage.
        return f"it has the extension type {name}, which is unknown here"
    return _refused_type(field.type)


def _refused_type(kind: pa.DataType) -> str | None:
    if isinstance(kind, pa.BaseExtensionType):
        known = kind.extension_name in KNOWN_EXTENSIONS
        return None if known else f"it has the extension type {kind.extension_name}, which is unknown here"
    if kind.id in _PLAIN:
        return None
    return _first_refusal(kind)


def _first_refusal(kind: pa.DataType) -> str | None:
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return _refused_type(kind.value_type)
    if pt.is_map(kind):
        return _refused(kind.key_field) or _refused(kind.item_field)
    if pt.is_struct(kind):
        names = [member.name for member in kind]
        if len(set(names)) < len(names):
            return "it is a struct with two members of one name"
        return _any_refusal(kind)
    if any(is_list(kind) for is_list in _LISTS):
        return _refused(kind.value_field)
    return f"it has the type {kind}, which has no signature"


def _any_refusal(members: Any) -> str | None:
    return next((refused for member in members if (refused := _refused(member))), None)
