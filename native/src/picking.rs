//! A few values of Parquet columns, taken out of their pages without decoding the others.
//!
//! What is taken so are flat fields in pages of the first kind, plain or by a dictionary: what the write log
//! is made of. All else gives None, and is for a whole reader; so does what is damaged, of which that reader
//! can say more.

use std::sync::Arc;

use arrow_array::types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type};
use arrow_array::{ArrayRef, BooleanArray, GenericByteArray, make_array};
use arrow_buffer::{ArrowNativeType, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

use crate::levels::Numbers;
use crate::source::Source;

/// Picked values, and for each its definition level.
pub struct Picked {
    pub values: ArrayRef,
    pub levels: Vec<u8>,
}

/// One page: its levels, and the values of those rows that have one.
pub struct Data {
    pub rows: usize,
    pub values: Bytes,
    levels: Option<Bytes>,
    by_dictionary: bool,
}

/// The data pages of one column of a row group, in order.
pub struct Pages {
    reader: SerializedPageReader<Source>,
    most: u8,
    dictionary: Bytes,
}

impl Pages {
    /// None for columns of lists, and for levels that structs of flat fields don't have.
    pub fn open(source: &Source, chunk: &ColumnChunkMetaData, rows: usize) -> Option<Self> {
        let column = chunk.column_descr();
        let most = u8::try_from(column.max_def_level()).ok().filter(|most| *most <= 2)?;
        if column.max_rep_level() != 0 {
            return None;
        }
        let reader = SerializedPageReader::new(Arc::new(source.clone()), chunk, rows, None).ok()?;
        Some(Self { reader, most, dictionary: Bytes::new() })
    }

    /// Pass over data pages that have none but the next `most` rows, unread; give how many rows they have.
    fn skip(&mut self, most: usize) -> Option<usize> {
        let mut skipped: usize = 0;
        while let Some(page) = self.reader.peek_next_page().ok()? {
            if page.is_dict {
                if let Some(Page::DictionaryPage { buf, .. }) = self.reader.get_next_page().ok()? {
                    self.dictionary = buf;
                }
                continue;
            }
            let end = skipped.checked_add(page.num_levels?)?;
            if end > most {
                break;
            }
            self.reader.skip_next_page().ok()?;
            skipped = end;
        }
        Some(skipped)
    }

    /// Read the next data page; `Some(None)` at the end.
    pub fn next(&mut self) -> Option<Option<Data>> {
        loop {
            match self.reader.get_next_page().ok()? {
                None => return Some(None),
                Some(Page::DictionaryPage { buf, .. }) => self.dictionary = buf,
                Some(Page::DataPage { buf, num_values, encoding, def_level_encoding, .. }) => {
                    let by_dictionary = match encoding {
                        Encoding::PLAIN => false,
                        Encoding::RLE_DICTIONARY => true,
                        _ => return None,
                    };
                    let rows = num_values as usize;
                    if self.most == 0 {
                        return Some(Some(Data { rows, values: buf, levels: None, by_dictionary }));
                    }
                    let length = u32::from_le_bytes(*buf.first_chunk()?) as usize;
                    if def_level_encoding != Encoding::RLE || length > buf.len() - 4 {
                        return None;
                    }
                    let (levels, values) = (buf.slice(4..4 + length), buf.slice(4 + length..));
                    let full = Numbers::new(&levels, self.width())?.all(rows, self.most.into());
                    let levels = (!full).then_some(levels);
                    return Some(Some(Data { rows, values, levels, by_dictionary }));
                }
                Some(Page::DataPageV2 { .. }) => return None,
            }
        }
    }

    fn width(&self) -> u32 {
        u8::BITS - self.most.leading_zeros()
    }
}

impl Data {
    /// Whether no value is missing, and each stands here as it is.
    pub fn is_whole(&self) -> bool {
        self.levels.is_none() && !self.by_dictionary
    }
}

/// How values stand in a page, and what becomes of them.
#[derive(Clone, Copy)]
enum Shape {
    Bits,
    /// Bytes of a value in the page, of which so many are the value.
    Fixed(usize, usize),
    /// A big-endian number of so many bytes, and the bytes that it becomes.
    Decimal(usize, usize),
    Text,
}

impl Shape {
    fn of(kind: &DataType, column: &ColumnDescriptor) -> Option<Self> {
        use DataType::*;
        let length = usize::try_from(column.type_length()).unwrap_or(0);
        let shape = match (kind, column.physical_type()) {
            (Boolean, Type::BOOLEAN) => Self::Bits,
            (Int8 | UInt8, Type::INT32) => Self::Fixed(4, 1),
            (Int16 | UInt16, Type::INT32) => Self::Fixed(4, 2),
            (Int32 | UInt32 | Date32 | Time32(TimeUnit::Millisecond), Type::INT32) => Self::Fixed(4, 4),
            (Float32, Type::FLOAT) => Self::Fixed(4, 4),
            (Int64 | UInt64 | Time64(_), Type::INT64) => Self::Fixed(8, 8),
            (
                Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _),
                Type::INT64,
            ) => Self::Fixed(8, 8),
            (Float64, Type::DOUBLE) => Self::Fixed(8, 8),
            (FixedSizeBinary(size), Type::FIXED_LEN_BYTE_ARRAY) if *size == column.type_length() => {
                Self::Fixed(length, length)
            }
            (Decimal128(..), Type::FIXED_LEN_BYTE_ARRAY) if length <= 16 => Self::Decimal(length, 16),
            (Decimal256(..), Type::FIXED_LEN_BYTE_ARRAY) if length <= 32 => Self::Decimal(length, 32),
            (Utf8 | LargeUtf8 | Binary | LargeBinary, Type::BYTE_ARRAY) => Self::Text,
            _ => return None,
        };
        Some(shape)
    }
}

/// Pick the values of ascending rows out of one column of a row group.
pub fn pick(
    source: &Source,
    chunk: &ColumnChunkMetaData,
    kind: &DataType,
    rows: &[usize],
    total: usize,
) -> Option<Picked> {
    let shape = Shape::of(kind, chunk.column_descr())?;
    let mut pages = Pages::open(source, chunk, total)?;
    let mut taken = Taken { shape, bytes: MutableBuffer::new(0), ends: Vec::new(), levels: Vec::new() };
    let mut rest = rows;
    let mut before = 0;
    while let Some(first) = rest.first() {
        before += pages.skip(first - before)?;
        let page = pages.next()??;
        let inside = rest.partition_point(|row| *row < before + page.rows);
        let (here, later) = rest.split_at(inside);
        taken.take(&pages, &page, here.iter().map(|row| row - before))?;
        before += page.rows;
        rest = later;
    }
    let valid: Vec<bool> = taken.levels.iter().map(|level| *level == pages.most).collect();
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    let levels = std::mem::take(&mut taken.levels);
    Some(Picked { values: taken.array(kind, nulls)?, levels })
}

/// What was taken out of pages so far.
struct Taken {
    shape: Shape,
    bytes: MutableBuffer,
    /// Of text: where each value ends.
    ends: Vec<usize>,
    levels: Vec<u8>,
}

impl Taken {
    fn take(&mut self, pages: &Pages, page: &Data, rows: impl Iterator<Item = usize>) -> Option<()> {
        let mut ordinals = Ordinals::new(page, pages)?;
        if page.by_dictionary {
            let (width, indexes) = page.values.split_first()?;
            let mut indexes = Numbers::new(indexes, (*width).into())?;
            let entries = self.entries(&pages.dictionary)?;
            for row in rows {
                let ordinal = ordinals.at(row)?;
                self.levels.push(ordinal.level);
                match ordinal.value {
                    None => self.add_null(),
                    Some(at) => self.add(entries.get(indexes.at(at)? as usize)?)?,
                }
            }
            return Some(());
        }
        let values = &page.values[..];
        let mut texts = Texts { values, place: 0, next: 0 };
        for row in rows {
            let ordinal = ordinals.at(row)?;
            self.levels.push(ordinal.level);
            match (ordinal.value, self.shape) {
                (None, _) => self.add_null(),
                (Some(at), Shape::Bits) => self.add(&[values.get(at / 8)? >> (at % 8) & 1])?,
                (Some(at), Shape::Fixed(size, _) | Shape::Decimal(size, _)) => {
                    let start = at.checked_mul(size)?;
                    self.add(values.get(start..start.checked_add(size)?)?)?;
                }
                (Some(at), Shape::Text) => self.add(texts.at(at)?)?,
            }
        }
        Some(())
    }

    /// The entries of a dictionary.
    fn entries<'a>(&self, dictionary: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        match self.shape {
            Shape::Bits => None,
            Shape::Fixed(size, _) | Shape::Decimal(size, _) => {
                (size > 0).then(|| dictionary.chunks_exact(size).collect())
            }
            Shape::Text => {
                let mut texts = Texts { values: dictionary, place: 0, next: 0 };
                let mut entries = Vec::new();
                while texts.next < dictionary.len() {
                    entries.push(texts.at(entries.len())?);
                }
                Some(entries)
            }
        }
    }

    /// Add a value as it stands in its page.
    fn add(&mut self, value: &[u8]) -> Option<()> {
        match self.shape {
            Shape::Bits => self.bytes.push(value[0]),
            Shape::Fixed(_, size) => self.bytes.extend_from_slice(&value[..size]),
            Shape::Decimal(_, size) => {
                let sign = if value.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
                let mut number = [sign; 32];
                for (to, from) in number.iter_mut().zip(value.iter().rev()) {
                    *to = *from;
                }
                self.bytes.extend_from_slice(&number[..size]);
            }
            Shape::Text => {
                self.bytes.extend_from_slice(value);
                self.ends.push(self.bytes.len());
            }
        }
        Some(())
    }

    fn add_null(&mut self) {
        match self.shape {
            Shape::Bits => self.bytes.push(0_u8),
            Shape::Fixed(_, size) | Shape::Decimal(_, size) => self.bytes.extend_zeros(size),
            Shape::Text => self.ends.push(self.bytes.len()),
        }
    }

    fn array(self, kind: &DataType, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
        let bytes: Buffer = self.bytes.into();
        match (self.shape, kind) {
            (Shape::Bits, _) => {
                let bits = bytes.iter().map(|byte| *byte != 0).collect();
                Some(Arc::new(BooleanArray::new(bits, nulls)))
            }
            (Shape::Text, DataType::Utf8) => text::<Utf8Type>(&self.ends, bytes, nulls),
            (Shape::Text, DataType::LargeUtf8) => text::<LargeUtf8Type>(&self.ends, bytes, nulls),
            (Shape::Text, DataType::Binary) => text::<BinaryType>(&self.ends, bytes, nulls),
            (Shape::Text, _) => text::<LargeBinaryType>(&self.ends, bytes, nulls),
            (Shape::Fixed(_, size) | Shape::Decimal(_, size), _) => {
                let count = bytes.len().checked_div(size)?;
                let data = ArrayData::builder(kind.clone()).len(count).add_buffer(bytes).nulls(nulls);
                Some(make_array(data.build().ok()?))
            }
        }
    }
}

fn text<T: ByteArrayType>(ends: &[usize], bytes: Buffer, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(T::Offset::usize_as(0));
    for end in ends {
        offsets.push(T::Offset::from_usize(*end)?);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Some(Arc::new(GenericByteArray::<T>::try_new(offsets, bytes, nulls).ok()?))
}

/// The plain texts of a page, each with its length before it: found one after the other.
struct Texts<'a> {
    values: &'a [u8],
    /// Which text is the next, and where it begins.
    place: usize,
    next: usize,
}

impl<'a> Texts<'a> {
    /// Give the text at a place past all those given before.
    fn at(&mut self, place: usize) -> Option<&'a [u8]> {
        let mut next = self.next;
        for _ in self.place..place {
            next += 4 + self.length(next)?;
        }
        let length = self.length(next)?;
        let text = self.values.get(next + 4..next + 4 + length)?;
        (self.place, self.next) = (place + 1, next + 4 + length);
        Some(text)
    }

    #[inline(always)]
    fn length(&self, at: usize) -> Option<usize> {
        Some(u32::from_le_bytes(*self.values.get(at..)?.first_chunk()?) as usize)
    }
}

/// Tells for rows of a page, which ascend, whether they have a value and which.
struct Ordinals<'a> {
    levels: Option<Numbers<'a>>,
    most: u8,
    /// Values before this row.
    row: usize,
    count: usize,
}

struct Ordinal {
    level: u8,
    value: Option<usize>,
}

impl<'a> Ordinals<'a> {
    fn new(page: &'a Data, pages: &Pages) -> Option<Self> {
        let levels = match &page.levels {
            None => None,
            Some(levels) => Some(Numbers::new(levels, pages.width())?),
        };
        Some(Self { levels, most: pages.most, row: 0, count: 0 })
    }

    fn at(&mut self, row: usize) -> Option<Ordinal> {
        let Some(levels) = &mut self.levels else {
            return Some(Ordinal { level: self.most, value: Some(row) });
        };
        for before in self.row..row {
            self.count += usize::from(levels.at(before)? == u32::from(self.most));
        }
        self.row = row;
        let level = u8::try_from(levels.at(row)?).ok().filter(|level| *level <= self.most)?;
        Some(Ordinal { level, value: (level == self.most).then_some(self.count) })
    }
}
