//! Columns of any type: chosen once per batch, nested ones encoded row by row.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use crate::cbor::{ARRAY, DURATION_TAG, MAP, NULL, TIME_TAG, push_head, push_text};
use crate::cell::{
    Booleans, ByteBooleans, Cells, Clock, Days, Decimals, Floats, Intervals, Ints, LongDays, Unsigned, Uuids,
    WideDecimals, WidestDecimals,
};
use crate::exchange::Shape;
use crate::text::{Column, Content, Fixed, Layout, Offsets, Strings, Views};

pub const DUPLICATE_KEYS: &str = "a map holds a key twice; make its keys unique";
pub const NULL_KEY: &str = "a map has a null key; give every member a key";

/// Types nested deeper than this are refused, so that no schema can exhaust the stack.
const DEEPEST: usize = 64;

/// A column, or a part of one: its values, and which of them are null.
pub struct Node {
    /// Nulls of the values themselves, those of dictionaries and runs included.
    pub nulls: Option<NullBuffer>,
    pub kind: Kind,
}

pub enum Kind {
    Null,
    Cells(Box<dyn Cells>),
    Strings(Box<dyn Strings>),
    List {
        bounds: Bounds,
        items: Box<Node>,
    },
    Struct(Vec<Member>),
    Map {
        bounds: Bounds,
        keys: Box<Node>,
        values: Box<Node>,
    },
    /// Dictionaries and runs: which of `values` each row has.
    Indirect {
        places: Vec<usize>,
        values: Box<Node>,
    },
}

pub struct Member {
    /// The encoded name.
    name: Vec<u8>,
    node: Node,
}

/// Which items belong to a row.
pub enum Bounds {
    Offsets { offsets: ScalarBuffer<i32>, base: usize },
    LongOffsets { offsets: ScalarBuffer<i64>, base: usize },
    Fixed(usize),
    Views { offsets: ScalarBuffer<i32>, sizes: ScalarBuffer<i32> },
    LongViews { offsets: ScalarBuffer<i64>, sizes: ScalarBuffer<i64> },
}

impl Bounds {
    fn range(&self, row: usize) -> Range<usize> {
        match self {
            Bounds::Offsets { offsets, base } => {
                offsets[row] as usize - base..offsets[row + 1] as usize - base
            }
            Bounds::LongOffsets { offsets, base } => {
                offsets[row] as usize - base..offsets[row + 1] as usize - base
            }
            Bounds::Fixed(size) => row * size..(row + 1) * size,
            Bounds::Views { offsets, sizes } => {
                let from = offsets[row] as usize;
                from..from + sizes[row] as usize
            }
            Bounds::LongViews { offsets, sizes } => {
                let from = offsets[row] as usize;
                from..from + sizes[row] as usize
            }
        }
    }
}

/// Memory that encoding a row reuses.
#[derive(Default)]
pub struct Scratch {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Scratch {
    /// Let go of memory beyond so many bytes.
    pub fn give_back(&mut self, kept: usize) {
        if self.bytes.capacity() > kept || self.entries.capacity() * size_of::<Entry>() > kept {
            *self = Self::default();
        }
    }
}

/// A member of a map as it lies in the buffer: its key, then its value, empty when null.
#[derive(Clone, Copy)]
struct Entry {
    key: usize,
    value: usize,
    end: usize,
}

impl Node {
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Append the encoding of a row that is not null.
    pub fn append(&self, row: usize, out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<(), &'static str> {
        match &self.kind {
            Kind::Null => out.push(NULL),
            Kind::Cells(cells) => cells.append(row, out),
            Kind::Strings(strings) => strings.append(row, out)?,
            Kind::Indirect { places, values } => values.append(places[row], out, scratch)?,
            Kind::List { bounds, items } => {
                let range = bounds.range(row);
                push_head(ARRAY, range.len() as u64, out);
                for item in range {
                    if items.is_null(item) {
                        out.push(NULL);
                    } else {
                        items.append(item, out, scratch)?;
                    }
                }
            }
            Kind::Struct(members) => {
                let present = members.iter().filter(|member| !member.node.is_null(row)).count();
                push_head(MAP, present as u64, out);
                for Member { name, node } in members {
                    if !node.is_null(row) {
                        out.extend_from_slice(name);
                        node.append(row, out, scratch)?;
                    }
                }
            }
            Kind::Map { bounds, keys, values } => {
                append_map(bounds.range(row), keys, values, out, scratch)?;
            }
        }
        Ok(())
    }
}

/// Append a map; its members are sorted where they lie, if they aren't already.
fn append_map(
    range: Range<usize>,
    keys: &Node,
    values: &Node,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), &'static str> {
    let present = range.clone().filter(|item| !values.is_null(*item)).count();
    push_head(MAP, present as u64, out);
    let start = out.len();
    // Maps nest: each takes its own end of the shared list of entries.
    let first = scratch.entries.len();
    for item in range.clone() {
        if keys.is_null(item) {
            return Err(NULL_KEY);
        }
        let key = out.len();
        keys.append(item, out, scratch)?;
        let value = out.len();
        if !values.is_null(item) {
            values.append(item, out, scratch)?;
        }
        scratch.entries.push(Entry { key, value, end: out.len() });
    }
    let entries = &mut scratch.entries[first..];
    let key = |entry: &Entry| entry.key..entry.value;
    let in_order = entries.is_sorted_by(|one, next| out[key(one)] < out[key(next)]);
    if !in_order || present < range.len() {
        entries.sort_unstable_by(|one, next| out[key(one)].cmp(&out[key(next)]));
        if entries.windows(2).any(|pair| out[key(&pair[0])] == out[key(&pair[1])]) {
            return Err(DUPLICATE_KEYS);
        }
        scratch.bytes.clear();
        scratch.bytes.extend_from_slice(&out[start..]);
        out.truncate(start);
        for entry in entries.iter().filter(|entry| entry.end > entry.value) {
            out.extend_from_slice(&scratch.bytes[entry.key - start..entry.end - start]);
        }
    }
    scratch.entries.truncate(first);
    Ok(())
}

impl Scratch {
    /// Forget what a row that failed left behind.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// Build the encoder of an array; `Err` says what about its type has no signature.
pub fn build(array: &ArrayRef, shape: &Shape, depth: usize) -> Result<Node, String> {
    if depth > DEEPEST {
        return Err(format!("it is nested more than {DEEPEST} levels deep"));
    }
    if let Some(extension) = &shape.extension {
        return build_extension(array, extension);
    }
    let nulls = array.nulls().cloned();
    if let Some(cells) = cells(array) {
        return Ok(Node { nulls, kind: Kind::Cells(cells) });
    }
    if let Some(strings) = strings(array) {
        return Ok(Node { nulls, kind: Kind::Strings(strings) });
    }
    let kind = match array.data_type() {
        DataType::Null => {
            return Ok(Node { nulls: Some(NullBuffer::new_null(array.len())), kind: Kind::Null });
        }
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => {
            return indirect(array, shape, depth);
        }
        DataType::Struct(_) => structure(array, shape, depth)?,
        DataType::Map(_, _) => {
            let map = array.as_map();
            let (bounds, used) = offsets(map.offsets().inner());
            let entries = shape.child(0)?;
            let part = |column: &ArrayRef, at| {
                build(&column.slice(used.start, used.len()), entries.child(at)?, depth + 1).map(Box::new)
            };
            Kind::Map { bounds, keys: part(map.keys(), 0)?, values: part(map.values(), 1)? }
        }
        _ => list(array, shape, depth)?,
    };
    Ok(Node { nulls, kind })
}

fn build_extension(array: &ArrayRef, extension: &str) -> Result<Node, String> {
    let nulls = array.nulls().cloned();
    let kind = match (extension, array.data_type()) {
        ("arrow.uuid", DataType::FixedSizeBinary(16)) => {
            let values = array.as_fixed_size_binary().values().clone();
            Some(Kind::Cells(Box::new(Uuids(values))))
        }
        ("arrow.bool8", DataType::Int8) => {
            let values = array.as_primitive::<Int8Type>().values().clone();
            Some(Kind::Cells(Box::new(ByteBooleans(values))))
        }
        ("arrow.json", DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            strings(array).map(Kind::Strings)
        }
        ("rundiff.cbor", DataType::Binary) => {
            let binary = array.as_binary::<i32>();
            let layout =
                Offsets { offsets: binary.offsets().inner().clone(), values: binary.values().clone() };
            let column = Column { layout, content: Content::Encoded };
            // An encoded null is null, like any other.
            let present = |row| !array.is_null(row) && !column.is_encoded_null(row);
            let nulls = NullBuffer::new(BooleanBuffer::collect_bool(array.len(), present));
            return Ok(Node { nulls: Some(nulls), kind: Kind::Strings(Box::new(column)) });
        }
        _ => None,
    };
    match kind {
        Some(kind) => Ok(Node { nulls, kind }),
        None => Err(format!("it has the extension type {extension}, which is unknown here")),
    }
}

fn cells(array: &ArrayRef) -> Option<Box<dyn Cells>> {
    macro_rules! values {
        ($kind:ty) => {
            array.as_primitive::<$kind>().values().clone()
        };
    }
    macro_rules! clock {
        ($kind:ty, $native:ty, $per_second:literal, $tag:expr) => {
            Box::new(Clock::<$native, $per_second> { values: values!($kind), tag: $tag })
        };
    }
    Some(match array.data_type() {
        DataType::Boolean => Box::new(Booleans(array.as_boolean().values().clone())),
        DataType::Int8 => Box::new(Ints(values!(Int8Type))),
        DataType::Int16 => Box::new(Ints(values!(Int16Type))),
        DataType::Int32 => Box::new(Ints(values!(Int32Type))),
        DataType::Int64 => Box::new(Ints(values!(Int64Type))),
        DataType::UInt8 => Box::new(Ints(values!(UInt8Type))),
        DataType::UInt16 => Box::new(Ints(values!(UInt16Type))),
        DataType::UInt32 => Box::new(Ints(values!(UInt32Type))),
        DataType::UInt64 => Box::new(Unsigned(values!(UInt64Type))),
        DataType::Float16 => Box::new(Floats(values!(Float16Type))),
        DataType::Float32 => Box::new(Floats(values!(Float32Type))),
        DataType::Float64 => Box::new(Floats(values!(Float64Type))),
        DataType::Decimal32(_, scale) => Box::new(Decimals { values: values!(Decimal32Type), scale: *scale }),
        DataType::Decimal64(_, scale) => Box::new(Decimals { values: values!(Decimal64Type), scale: *scale }),
        DataType::Decimal128(_, scale) => {
            Box::new(WideDecimals(Decimals { values: values!(Decimal128Type), scale: *scale }))
        }
        DataType::Decimal256(_, scale) => {
            Box::new(WidestDecimals(Decimals { values: values!(Decimal256Type), scale: *scale }))
        }
        DataType::Date32 => Box::new(Days(values!(Date32Type))),
        DataType::Date64 => Box::new(LongDays(values!(Date64Type))),
        DataType::Time32(TimeUnit::Second) => clock!(Time32SecondType, i32, 1, DURATION_TAG),
        DataType::Time32(TimeUnit::Millisecond) => {
            clock!(Time32MillisecondType, i32, 1_000, DURATION_TAG)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            clock!(Time64MicrosecondType, i64, 1_000_000, DURATION_TAG)
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            clock!(Time64NanosecondType, i64, 1_000_000_000, DURATION_TAG)
        }
        DataType::Duration(unit) => match unit {
            TimeUnit::Second => clock!(DurationSecondType, i64, 1, DURATION_TAG),
            TimeUnit::Millisecond => clock!(DurationMillisecondType, i64, 1_000, DURATION_TAG),
            TimeUnit::Microsecond => clock!(DurationMicrosecondType, i64, 1_000_000, DURATION_TAG),
            TimeUnit::Nanosecond => clock!(DurationNanosecondType, i64, 1_000_000_000, DURATION_TAG),
        },
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => clock!(TimestampSecondType, i64, 1, TIME_TAG),
            TimeUnit::Millisecond => clock!(TimestampMillisecondType, i64, 1_000, TIME_TAG),
            TimeUnit::Microsecond => clock!(TimestampMicrosecondType, i64, 1_000_000, TIME_TAG),
            TimeUnit::Nanosecond => clock!(TimestampNanosecondType, i64, 1_000_000_000, TIME_TAG),
        },
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Box::new(Intervals(values!(IntervalMonthDayNanoType)))
        }
        _ => return None,
    })
}

fn strings(array: &ArrayRef) -> Option<Box<dyn Strings>> {
    fn column<L: Layout + 'static>(layout: L, content: Content) -> Box<dyn Strings> {
        Box::new(Column { layout, content })
    }
    macro_rules! offsets {
        ($array:expr, $content:expr) => {{
            let array = $array;
            let layout = Offsets { offsets: array.offsets().inner().clone(), values: array.values().clone() };
            column(layout, $content)
        }};
    }
    macro_rules! views {
        ($array:expr, $content:expr) => {{
            let array = $array;
            column(Views { views: array.views().clone(), buffers: array.data_buffers().clone() }, $content)
        }};
    }
    Some(match array.data_type() {
        DataType::Utf8 => offsets!(array.as_string::<i32>(), Content::Text),
        DataType::LargeUtf8 => offsets!(array.as_string::<i64>(), Content::Text),
        DataType::Utf8View => views!(array.as_string_view(), Content::Text),
        DataType::Binary => offsets!(array.as_binary::<i32>(), Content::Bytes),
        DataType::LargeBinary => offsets!(array.as_binary::<i64>(), Content::Bytes),
        DataType::BinaryView => views!(array.as_binary_view(), Content::Bytes),
        DataType::FixedSizeBinary(width) => {
            let values = array.as_fixed_size_binary().values().clone();
            column(Fixed { values, width: *width as usize }, Content::Bytes)
        }
        _ => return None,
    })
}

fn structure(array: &ArrayRef, shape: &Shape, depth: usize) -> Result<Kind, String> {
    let array = array.as_struct();
    let mut members = Vec::with_capacity(array.num_columns());
    for (at, (field, column)) in array.fields().iter().zip(array.columns()).enumerate() {
        let mut name = Vec::new();
        push_text(field.name(), &mut name);
        members.push(Member { name, node: build(column, shape.child(at)?, depth + 1)? });
    }
    members.sort_unstable_by(|one, next| one.name.cmp(&next.name));
    if members.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err("it is a struct with two members of one name".to_owned());
    }
    Ok(Kind::Struct(members))
}

fn list(array: &ArrayRef, shape: &Shape, depth: usize) -> Result<Kind, String> {
    let (bounds, items) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (bounds, used) = offsets(list.offsets().inner());
            (bounds, list.values().slice(used.start, used.len()))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.offsets().inner();
            let (base, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            (Bounds::LongOffsets { offsets: offsets.clone(), base }, list.values().slice(base, end - base))
        }
        DataType::FixedSizeList(_, size) => {
            (Bounds::Fixed(*size as usize), array.as_fixed_size_list().values().clone())
        }
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            let bounds = Bounds::Views { offsets: list.offsets().clone(), sizes: list.sizes().clone() };
            (bounds, list.values().clone())
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            let bounds = Bounds::LongViews { offsets: list.offsets().clone(), sizes: list.sizes().clone() };
            (bounds, list.values().clone())
        }
        DataType::Union(_, _) => return Err("it is a union, which has no signature".to_owned()),
        other => return Err(format!("it has the type {other}, which has no signature")),
    };
    let items = Box::new(build(&items, shape.child(0)?, depth + 1)?);
    Ok(Kind::List { bounds, items })
}

/// Offsets and the part of the children that they use: a slice may share very large children.
fn offsets(offsets: &ScalarBuffer<i32>) -> (Bounds, Range<usize>) {
    let (base, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    (Bounds::Offsets { offsets: offsets.clone(), base }, base..end)
}

fn indirect(array: &ArrayRef, shape: &Shape, depth: usize) -> Result<Node, String> {
    let (places, values, own_nulls) = if let Some(dictionary) = array.as_any_dictionary_opt() {
        let values = build(dictionary.values(), shape.values()?, depth + 1)?;
        let nulls = dictionary.keys().nulls().cloned();
        let places =
            if dictionary.values().is_empty() { vec![0; array.len()] } else { dictionary.normalized_keys() };
        // Keys may point nowhere only if they are null.
        let nowhere = dictionary.values().is_empty().then(|| NullBuffer::new_null(array.len()));
        (places, values, nowhere.or(nulls))
    } else {
        let (places, values) = runs(array)?;
        (places, build(&values, shape.child(1)?, depth + 1)?, None)
    };
    let present = |row: usize| {
        own_nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) && !values.is_null(places[row])
    };
    let nulls = NullBuffer::new(BooleanBuffer::collect_bool(places.len(), present));
    let nulls = (nulls.null_count() > 0).then_some(nulls);
    Ok(Node { nulls, kind: Kind::Indirect { places, values: Box::new(values) } })
}

/// Which value each row of a run-end encoded array has.
fn runs(array: &ArrayRef) -> Result<(Vec<usize>, ArrayRef), String> {
    fn expand<R: RunEndIndexType>(array: &ArrayRef) -> Option<(Vec<usize>, ArrayRef)> {
        let runs = array.as_run_opt::<R>()?;
        let ends = runs.run_ends();
        let mut places = Vec::with_capacity(array.len());
        if !array.is_empty() {
            let mut place = ends.get_start_physical_index();
            for row in 0..array.len() {
                let at = row + ends.offset();
                while ends.values()[place].as_usize() <= at {
                    place += 1;
                }
                places.push(place);
            }
        }
        Some((places, runs.values().clone()))
    }
    use arrow_buffer::ArrowNativeType;
    expand::<Int16Type>(array)
        .or_else(|| expand::<Int32Type>(array))
        .or_else(|| expand::<Int64Type>(array))
        .ok_or_else(|| "its run ends have no integer type".to_owned())
}
