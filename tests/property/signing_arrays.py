"""Arrow arrays of every type, layout and nesting, with what they mean to the reference.

An Arrow type has *raw* values (what its storage holds, so that no nanosecond gets lost); `meaning`
turns a raw value into the reference's value, and `build` turns raw values into an array on purpose in
awkward layouts: junk under nulls, gaps, shuffled views, unused dictionary entries, offsets.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from hypothesis import strategies as st

from rundiff.signing import mixed
from rundiff.signing.reference import encode
from rundiff.signing.values import Day, Duration, Interval, Timestamp

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = sorted(PER_SECOND)
_POWERS = [2**bits for bits in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64)]
EDGES = sorted(sign * (power + step) for power in _POWERS for step in (-1, 0, 1, 9) for sign in (1, -1))

PLAIN_KINDS = [
    pa.null(),
    pa.bool_(),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64()),
    *(
        pa.decimal32(9, 2),
        pa.decimal64(18, 5),
        pa.decimal128(38, 18),
        pa.decimal128(12, 0),
        pa.decimal128(20, -3),
    ),
    *(pa.decimal256(76, 30), pa.decimal128(38, 38), pa.decimal128(21, 2)),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.binary(3), pa.binary(24)),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
    *(pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "Europe/Berlin")),
    *(pa.duration(unit) for unit in UNITS),
    pa.month_day_nano_interval(),
    *(pa.uuid(), pa.json_(), pa.bool8(), mixed.MixedType()),
]

python_values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(EDGES)
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


_storable = st.sampled_from([kind for kind in PLAIN_KINDS[1:] if not isinstance(kind, pa.BaseExtensionType)])


def _wrap(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    no_null = inner.filter(lambda kind: not pt.is_null(kind))
    names = st.lists(st.text(max_size=4), unique=True, max_size=3)
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(pa.list_view),
        inner.map(pa.large_list_view),
        st.builds(pa.list_, inner, st.integers(0, 3)),
        names.flatmap(
            lambda used: st.tuples(*(st.builds(pa.field, st.just(name), inner) for name in used))
        ).map(pa.struct),
        st.builds(pa.map_, no_null, inner),
        st.builds(
            pa.dictionary,
            st.sampled_from([pa.int8(), pa.uint16(), pa.int64()]),
            _storable,
        ),
        st.builds(
            pa.run_end_encoded, st.sampled_from([pa.int16(), pa.int32(), pa.int64()]), inner.filter(_may_run)
        ),
    )


def _may_run(kind: pa.DataType) -> bool:
    return not pt.is_run_end_encoded(kind)


kinds = st.recursive(st.sampled_from(PLAIN_KINDS), _wrap, max_leaves=4)


def bounded(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from(
        [low, high, *(edge for edge in EDGES if low <= edge <= high)]
    )


def raw_values(kind: pa.DataType) -> st.SearchStrategy[Any]:  # noqa: PLR0911, PLR0912 - one branch per kind
    if isinstance(kind, pa.BaseExtensionType):
        return {
            "arrow.uuid": st.binary(min_size=16, max_size=16),
            "arrow.json": st.text(max_size=30),
            "arrow.bool8": st.integers(-128, 127),
            "rundiff.cbor": python_values.filter(lambda value: value is not None),
        }[kind.extension_name]
    if pt.is_null(kind):
        return st.none()
    if pt.is_boolean(kind):
        return st.booleans()
    if pt.is_integer(kind):
        low = 0 if pt.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
        return bounded(low, low + 2**kind.bit_width - 1)
    if pt.is_floating(kind):
        edges = [-0.0, 65504.0, *([2.0**63, 2.0**64, -(2.0**63), 2.0**100] if kind.bit_width > 16 else [])]
        return st.floats(width=kind.bit_width) | st.integers(-2000, 2000).map(float) | st.sampled_from(edges)
    if pt.is_decimal(kind):
        most, zeros = 10**kind.precision - 1, 10 ** min(max(kind.scale, 0), 6)
        return bounded(-most, most) | st.integers(-999, 999).map(lambda number: number * zeros)
    if pt.is_time(kind):
        return st.integers(0, 86_400 * PER_SECOND[kind.unit] - 1)
    if pt.is_date64(kind):
        return st.integers(-(10**7), 10**7).map(lambda day: day * 86_400_000)
    if pt.is_date32(kind):
        return bounded(-(2**31), 2**31 - 1)
    if pt.is_timestamp(kind) or pt.is_duration(kind):
        return bounded(-(2**63), 2**63 - 1) | st.integers(-99, 99).map(lambda n: n * PER_SECOND[kind.unit])
    if pt.is_interval(kind):
        return st.tuples(
            bounded(-(2**31), 2**31 - 1), bounded(-(2**31), 2**31 - 1), bounded(-(2**63), 2**63 - 1)
        )
    if pt.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return raw_values(kind.value_type)
    if pt.is_struct(kind):
        return st.fixed_dictionaries({field.name: optional(field.type) for field in kind})
    if pt.is_map(kind):
        keys = raw_values(kind.key_type)
        entries = st.tuples(keys, optional(kind.item_type))
        return st.lists(entries, max_size=4, unique_by=lambda entry: encode(meaning(kind.key_type, entry[0])))
    if pt.is_fixed_size_list(kind):
        return st.lists(optional(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if pt.is_nested(kind):
        return st.lists(optional(kind.value_type), max_size=4)
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        return st.text(max_size=4) | st.sampled_from(["x" * 23, "y" * 24, "ü" * 128, "z" * 300])
    return st.binary(max_size=4) | st.binary(min_size=20, max_size=30)


def optional(kind: pa.DataType) -> st.SearchStrategy[Any]:
    return st.none() | raw_values(kind)


def meaning(kind: pa.DataType, raw: Any) -> Any:  # noqa: PLR0911 - one branch per kind
    """The reference's value of a raw one."""
    if raw is None:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        name = kind.extension_name
        return UUID(bytes=raw) if name == "arrow.uuid" else raw != 0 if name == "arrow.bool8" else raw
    if pt.is_decimal(kind):
        return Decimal(raw).scaleb(-kind.scale, _WIDE)
    if pt.is_date(kind):
        return Day(raw if pt.is_date32(kind) else raw // 86_400_000)
    if pt.is_timestamp(kind):
        return Timestamp(*_split(raw, kind.unit))
    if pt.is_time(kind) or pt.is_duration(kind):
        return Duration(*_split(raw, kind.unit))
    if pt.is_interval(kind):
        return Interval(*raw)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return meaning(kind.value_type, raw)
    if pt.is_struct(kind):
        return {field.name: meaning(field.type, raw[field.name]) for field in kind}
    if pt.is_map(kind):
        # Two keys may be equal in Python and still have different signatures (a float and its decimal).
        return _Members((meaning(kind.key_type, key), meaning(kind.item_type, value)) for key, value in raw)
    if pt.is_nested(kind):
        return [meaning(kind.value_type, value) for value in raw]
    return raw


class _Members(dict[Any, Any]):
    """A mapping that keeps the pairs it was given, whatever Python thinks of their keys."""

    def __init__(self, pairs: Any) -> None:
        super().__init__()
        self._pairs = list(pairs)

    def items(self) -> Any:
        return self._pairs


_WIDE = decimal.Context(prec=100)


def _split(count: int, unit: str) -> tuple[int, int]:
    seconds, rest = divmod(count, PER_SECOND[unit])
    return seconds, rest * (10**9 // PER_SECOND[unit])


def build(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> pa.Array:
    """An array of raw values (None is null), cut out of a longer one."""
    before = draw(st.lists(optional(kind), max_size=2))
    after = draw(st.lists(optional(kind), max_size=2))
    return _whole(draw, kind, [*before, *raws, *after]).slice(len(before), len(raws))


def _whole(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> pa.Array:  # noqa: PLR0911 - by kind
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "rundiff.cbor":
            return mixed.encode(raws)
        return pa.ExtensionArray.from_storage(kind, _whole(draw, kind.storage_type, raws))
    if pt.is_dictionary(kind):
        return _dictionary(draw, kind, raws)
    if pt.is_run_end_encoded(kind):
        return _run_ends(draw, kind, raws)
    if pt.is_struct(kind):
        full = _without_nulls(draw, kind, raws)
        members = [build(draw, field.type, [raw[field.name] for raw in full]) for field in kind]
        if not members:
            return pa.array([None if raw is None else {} for raw in raws], kind)
        return pa.StructArray.from_arrays(members, fields=list(kind), mask=_mask(raws))
    if pt.is_fixed_size_list(kind):
        flat = [item for raw in _without_nulls(draw, kind, raws) for item in raw]
        values = build(draw, kind.value_type, flat)
        return _from_buffers(kind, raws, [], [values])
    if pt.is_map(kind):
        full, offsets = _runs(draw, kind, raws)
        entries = pa.struct([kind.key_field, kind.item_field])
        pairs = [pair for raw in full for pair in raw]
        children = [build(draw, field.type, [pair[at] for pair in pairs]) for at, field in enumerate(entries)]
        struct = pa.StructArray.from_arrays(children, fields=list(entries))
        return _from_buffers(kind, raws, [_buffer(offsets, np.int32)], [struct])
    if pt.is_list_view(kind) or pt.is_large_list_view(kind):
        return _list_view(draw, kind, raws)
    if pt.is_nested(kind):
        full, offsets = _runs(draw, kind, raws)
        values = build(draw, kind.value_type, [item for raw in full for item in raw])
        width = np.int64 if pt.is_large_list(kind) else np.int32
        return _from_buffers(kind, raws, [_buffer(offsets, width)], [values])
    return _plain(kind, raws)


def _plain(kind: pa.DataType, raws: list[Any]) -> pa.Array:
    if pt.is_decimal(kind):
        data = b"".join((raw or 0).to_bytes(kind.byte_width, "little", signed=True) for raw in raws)
        return _from_buffers(kind, raws, [pa.py_buffer(data)], [])
    if pt.is_temporal(kind) and not pt.is_interval(kind):
        return pa.array(raws, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    if pt.is_interval(kind):
        return pa.array([raw and pa.MonthDayNano(raw) for raw in raws], kind)
    if pt.is_float16(kind):
        return pa.array([None if raw is None else np.float16(raw) for raw in raws], kind)
    return pa.array(raws, kind)


def _without_nulls(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> list[Any]:
    """Put junk of the right shape under each null."""
    return [draw(raw_values(kind)) if raw is None else raw for raw in raws]


def _runs(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> tuple[list[Any], list[int]]:
    """Lists with junk under nulls and before the first, and the offsets of all but the latter."""
    full = [draw(raw_values(kind)), *_without_nulls(draw, kind, raws)]
    return full, np.cumsum([len(raw) for raw in full]).tolist()


def _list_view(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> pa.Array:
    full = _without_nulls(draw, kind, raws)
    starts, flat = [0] * len(full), []
    for row in draw(st.permutations(range(len(full)))):
        starts[row] = len(flat)
        flat += full[row]
    width = np.int64 if pt.is_large_list_view(kind) else np.int32
    buffers = [_buffer(starts, width), _buffer([len(raw) for raw in full], width)]
    return _from_buffers(kind, raws, buffers, [build(draw, kind.value_type, flat)])


def _dictionary(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> pa.Array:
    entries = [
        *draw(st.lists(optional(kind.value_type), max_size=3)),
        *(raw for raw in raws if raw is not None),
    ]
    taken = iter(range(len(entries) - sum(raw is not None for raw in raws), len(entries)))
    null_entry = next((at for at, entry in enumerate(entries) if entry is None), None)
    indices = [next(taken) if raw is not None else draw(st.sampled_from([None, null_entry])) for raw in raws]
    dictionary = build(draw, kind.value_type, entries)
    return pa.DictionaryArray.from_arrays(pa.array(indices, kind.index_type), dictionary)


def _run_ends(draw: Callable[[Any], Any], kind: pa.DataType, raws: list[Any]) -> pa.Array:
    ends = [at + 1 for at in range(len(raws)) if at + 1 == len(raws) or not _same(raws[at], raws[at + 1])]
    values = build(draw, kind.value_type, [raws[end - 1] for end in ends])
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind.run_end_type), values)


def _same(one: Any, other: Any) -> bool:
    # A run must repeat one raw value exactly: 0 and False, 1 and 1.0 are equal, but not in their storage.
    return repr(one) == repr(other)


def _from_buffers(
    kind: pa.DataType, raws: list[Any], buffers: list[Any], children: list[pa.Array]
) -> pa.Array:
    bitmap = pa.py_buffer(np.packbits(~_mask(raws).to_numpy(zero_copy_only=False), bitorder="little"))
    return pa.Array.from_buffers(kind, len(raws), [bitmap, *buffers], children=children or None)


def _mask(raws: list[Any]) -> pa.BooleanArray:
    return pa.array([raw is None for raw in raws], pa.bool_())


def _buffer(numbers: Iterable[int], width: Any) -> pa.Buffer:
    return pa.py_buffer(np.array(list(numbers), width))
