//! Columns of text and bytes of any length, wherever their layout keeps the bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow_buffer::{ArrowNativeType, Buffer, NullBuffer, ScalarBuffer};

use crate::cbor::{BYTES, HEAD_ROOM, NULL, SHORT_HEAD, TEXT, push_head, put_head, put_short_head};
use crate::present::present;
use crate::slots::{Name, Put, Rows, SHORT, Sizes, Slots, copy, copy_room};
#[cfg(target_arch = "x86_64")]
use crate::slots_wide::{Places, Texts, fill_texts};

pub const INVALID_UTF8: &str = "the text is not valid UTF-8; mend the text, or read it with its own encoding";

/// What the bytes of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Text,
    Bytes,
    /// Encoded already (`rundiff.cbor`): embedded as they are.
    Encoded,
}

impl Content {
    #[inline(always)]
    fn put_head(self, length: usize, out: &mut [u8]) -> usize {
        match self {
            Content::Text => put_head(TEXT, length as u64, out),
            Content::Bytes => put_head(BYTES, length as u64, out),
            Content::Encoded => 0,
        }
    }

    /// The same for a length of at most `SHORT`, in `SHORT_HEAD` bytes.
    #[inline(always)]
    fn put_short_head(self, length: usize, out: &mut [u8]) -> usize {
        match self {
            Content::Text => put_short_head(TEXT, length as u8, out),
            Content::Bytes => put_short_head(BYTES, length as u8, out),
            Content::Encoded => 0,
        }
    }
}

/// Where the bytes of a row lie: `source[from..from + length]`.
pub struct Place<'a> {
    source: &'a [u8],
    from: usize,
    length: usize,
}

impl<'a> Place<'a> {
    #[inline(always)]
    fn bytes(&self) -> &'a [u8] {
        &self.source[self.from..self.from + self.length]
    }

    /// A short value and what follows it, if there is as much.
    #[inline(always)]
    fn short(&self) -> Option<&'a [u8]> {
        self.source.get(self.from..self.from.wrapping_add(SHORT)).filter(|_| self.length <= SHORT)
    }
}

/// A layout of variable-length values.
pub trait Layout: Send + Sync {
    fn place(&self, row: usize) -> Place<'_>;

    /// Add `constant` and what `copy` may write for each row's value to `sizes`.
    fn add_rooms(&self, rows: Range<usize>, constant: usize, nulls: Option<&NullBuffer>, sizes: &mut Sizes) {
        let sizes = sizes.by_row();
        let mut add = |row| sizes[row] += constant + copy_room(self.place(rows.start + row).length);
        match present(nulls, rows.start, rows.len()) {
            None => (0..rows.len()).for_each(add),
            Some(present) => present.for_each(&mut add),
        }
    }

    /// Whether all texts of `rows`, those under nulls included, are surely valid UTF-8.
    fn all_valid(&self, rows: Range<usize>) -> bool;

    /// Whether all texts of `rows`, those under nulls included, are surely shorter than `SHORT`.
    fn all_short(&self, _rows: Range<usize>) -> bool {
        false
    }

    /// Write the texts of a group eight at a time, with heads of type `major`, and give how many rows
    /// are written.
    ///
    /// # Safety
    ///
    /// The processor has the instructions of the kernels.
    unsafe fn fill_by_eight(&self, _rows: Rows, _name: &Name, _slots: &mut Slots, _major: u8) -> usize {
        0
    }
}

/// Offsets into one buffer.
pub struct Offsets<O: ArrowNativeType> {
    pub offsets: ScalarBuffer<O>,
    pub values: Buffer,
}

/// Whether all values between these offsets are shorter than `SHORT`: a loop of plain vector arithmetic.
fn all_short<O: ArrowNativeType>(ends: &[O]) -> bool {
    // Any bit that a length has; one below 0 has the highest.
    if size_of::<O>() == 4 {
        let length = |pair: &[O]| (pair[1].as_usize() as u32).wrapping_sub(pair[0].as_usize() as u32);
        return ends.windows(2).fold(0, |bits, pair| bits | length(pair)) < SHORT as u32;
    }
    let length = |pair: &[O]| pair[1].as_usize().wrapping_sub(pair[0].as_usize());
    ends.windows(2).fold(0, |bits, pair| bits | length(pair)) < SHORT
}

/// Whether all bytes are ASCII, found out in longer strides than the standard library takes.
fn is_ascii(bytes: &[u8]) -> bool {
    let (strides, rest) = bytes.as_chunks::<128>();
    strides.iter().all(|stride| stride.iter().fold(0, |bits, byte| bits | byte) < 0x80) && rest.is_ascii()
}

impl<O: ArrowNativeType> Layout for Offsets<O> {
    #[inline(always)]
    fn place(&self, row: usize) -> Place<'_> {
        let from = self.offsets[row].as_usize();
        Place { source: &self.values, from, length: self.offsets[row + 1].as_usize() - from }
    }

    fn add_rooms(&self, rows: Range<usize>, constant: usize, nulls: Option<&NullBuffer>, sizes: &mut Sizes) {
        let ends = &self.offsets[rows.start..=rows.end];
        let room = |from: O, to: O| {
            let length = to.as_usize().wrapping_sub(from.as_usize());
            // Never more than there is, so that damaged offsets can't ask for all memory.
            constant + copy_room(length.min(self.values.len()))
        };
        match present(nulls, rows.start, rows.len()) {
            None => {
                for (pair, size) in ends.windows(2).zip(sizes.by_row()) {
                    *size += room(pair[0], pair[1]);
                }
            }
            Some(present) => {
                let sizes = sizes.by_row();
                present.for_each(|row| sizes[row] += room(ends[row], ends[row + 1]));
            }
        }
    }

    fn all_short(&self, rows: Range<usize>) -> bool {
        all_short(&self.offsets[rows.start..=rows.end])
    }

    fn all_valid(&self, rows: Range<usize>) -> bool {
        let ends = &self.offsets[rows.start..=rows.end];
        let all = &self.values[ends[0].as_usize()..ends[ends.len() - 1].as_usize()];
        if is_ascii(all) {
            return true;
        }
        // Valid together, and no value starts inside a character: then each is valid alone.
        let starts_inside =
            |at: &O| self.values.get(at.as_usize()).is_some_and(|byte| (0x80..0xc0).contains(byte));
        std::str::from_utf8(all).is_ok() && !ends[..ends.len() - 1].iter().any(starts_inside)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots, major: u8) -> usize {
        // SAFETY: as the caller says.
        unsafe { fill_texts(rows, name, slots, self, major) }
    }
}

#[cfg(target_arch = "x86_64")]
impl<O: ArrowNativeType> Texts for Offsets<O> {
    fn values(&self) -> &[u8] {
        &self.values
    }

    #[inline(always)]
    fn begin(&self, row: usize) -> usize {
        self.offsets[row].as_usize()
    }

    #[inline(always)]
    fn begins(&self, row: usize) -> Places {
        let offsets: &[O; 8] = self.offsets[row..row + 8].try_into().expect("its length");
        offsets.map(|at| at.as_usize())
    }
}

/// Views: up to 12 bytes inline, longer values in one of several buffers.
pub struct Views {
    pub views: ScalarBuffer<u128>,
    pub buffers: Arc<[Buffer]>,
}

impl Layout for Views {
    #[inline(always)]
    fn place(&self, row: usize) -> Place<'_> {
        let view = self.views[row];
        let length = view as u32 as usize;
        if length <= 12 {
            return Place { source: self.views.inner(), from: row * 16 + 4, length };
        }
        let source = &self.buffers[(view >> 64) as u32 as usize];
        Place { source, from: (view >> 96) as u32 as usize, length }
    }

    fn all_valid(&self, mut rows: Range<usize>) -> bool {
        // Texts under nulls may point nowhere: what can't be read isn't surely valid.
        rows.all(|row| {
            let view = self.views[row];
            view as u32 <= 12 && self.place(row).bytes().is_ascii()
        })
    }
}

/// Values of one width.
pub struct Fixed {
    pub values: Buffer,
    pub width: usize,
}

impl Layout for Fixed {
    #[inline(always)]
    fn place(&self, row: usize) -> Place<'_> {
        Place { source: &self.values, from: row * self.width, length: self.width }
    }

    fn all_valid(&self, _rows: Range<usize>) -> bool {
        false
    }

    fn all_short(&self, _rows: Range<usize>) -> bool {
        self.width < SHORT
    }
}

/// A column of texts or bytes, its layout chosen once per batch.
pub trait Strings: Send + Sync {
    /// Add what each row's value and name may take to `sizes`.
    fn rooms(&self, rows: Range<usize>, name: &Name, nulls: Option<&NullBuffer>, sizes: &mut Sizes);
    fn fill(&self, first: usize, name: &Name, nulls: Option<&NullBuffer>, slots: &mut Slots);
    /// Whether all of `rows` surely hold valid text, or bytes.
    fn all_valid(&self, rows: Range<usize>) -> bool;
    /// Whether all of `rows`, nulls included, are surely shorter than `SHORT`.
    fn all_short(&self, rows: Range<usize>) -> bool;
    /// Report the rows of `rows` that hold no valid text.
    fn check(&self, rows: Range<usize>, nulls: Option<&NullBuffer>, report: &mut dyn FnMut(usize));
    fn append(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str>;
    /// Whether the value is the encoding of null.
    fn is_encoded_null(&self, row: usize) -> bool;
}

pub struct Column<L> {
    pub layout: L,
    pub content: Content,
}

impl<L: Layout> Put for Column<L> {
    #[inline(always)]
    fn put(&self, row: usize, bytes: &mut [u8], at: usize) -> usize {
        let place = self.layout.place(row);
        // Nearly all values: head and bytes as two stores.
        if let Some(short) = place.short() {
            let room = &mut bytes[at..at + SHORT_HEAD + SHORT];
            let head = self.content.put_short_head(place.length, room);
            room[head..head + SHORT].copy_from_slice(short);
            return at + head + place.length;
        }
        let at = at + self.content.put_head(place.length, &mut bytes[at..at + HEAD_ROOM]);
        copy(place.source, place.from, place.length, bytes, at)
    }
}

impl<L: Layout> Strings for Column<L> {
    fn rooms(&self, rows: Range<usize>, name: &Name, nulls: Option<&NullBuffer>, sizes: &mut Sizes) {
        self.layout.add_rooms(rows, name.room(HEAD_ROOM), nulls, sizes);
    }

    fn fill(&self, first: usize, name: &Name, nulls: Option<&NullBuffer>, slots: &mut Slots) {
        let major = match self.content {
            Content::Text => Some(TEXT),
            Content::Bytes => Some(BYTES),
            Content::Encoded => None,
        };
        if let Some(major) = major
            && let Some(present) = slots.by_eight(first, name, nulls)
        {
            // SAFETY: slots go by eight only where the processor has the instructions.
            let done = unsafe { self.layout.fill_by_eight((first, present), name, slots, major) };
            if done > 0 {
                return slots.fill_from(done, present, first, name, self);
            }
        }
        slots.fill(first, name, nulls, self);
    }

    fn all_valid(&self, rows: Range<usize>) -> bool {
        self.content != Content::Text || rows.is_empty() || self.layout.all_valid(rows)
    }

    fn all_short(&self, rows: Range<usize>) -> bool {
        self.layout.all_short(rows)
    }

    fn check(&self, rows: Range<usize>, nulls: Option<&NullBuffer>, report: &mut dyn FnMut(usize)) {
        if self.all_valid(rows.clone()) {
            return;
        }
        for row in rows {
            if nulls.is_none_or(|nulls| nulls.is_valid(row))
                && std::str::from_utf8(self.layout.place(row).bytes()).is_err()
            {
                report(row);
            }
        }
    }

    fn append(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let bytes = self.layout.place(row).bytes();
        match self.content {
            Content::Text if std::str::from_utf8(bytes).is_err() => return Err(INVALID_UTF8),
            Content::Text => push_head(TEXT, bytes.len() as u64, out),
            Content::Bytes => push_head(BYTES, bytes.len() as u64, out),
            Content::Encoded => {}
        }
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn is_encoded_null(&self, row: usize) -> bool {
        self.content == Content::Encoded && self.layout.place(row).bytes() == [NULL]
    }
}
