//! Room for the messages of a few rows, side by side: columns are encoded one after another, each
//! in one tight loop over the rows, and every row's message grows in its own slot.

use arrow_buffer::NullBuffer;

use crate::present::{GROUP, all, present};
use crate::sha::{Block, Keying, PADDING_ROOM, Span, pad};
#[cfg(target_arch = "x86_64")]
use crate::slots_wide::pad_all;

/// Short values are copied as one block of this size, whatever their length: cheaper than a call.
pub const SHORT: usize = 32;

/// The encoded name of a field, in front of each of its values.
#[derive(Debug)]
pub struct Name {
    chunks: Vec<[u8; 16]>,
    length: usize,
}

impl Name {
    pub fn new(encoded: &[u8]) -> Self {
        let mut padded = encoded.to_vec();
        padded.resize(encoded.len().next_multiple_of(16), 0);
        Self { chunks: padded.as_chunks().0.to_vec(), length: encoded.len() }
    }

    /// What a value of at most `value` bytes takes with its name, scribbled bytes included.
    pub fn room(&self, value: usize) -> usize {
        (self.chunks.len() * 16).max(self.length + value)
    }

    /// The name in chunks, zeros behind it, and its length.
    pub fn parts(&self) -> (&[[u8; 16]], usize) {
        (&self.chunks, self.length)
    }

    #[inline(always)]
    pub fn put(&self, bytes: &mut [u8], at: usize) -> usize {
        let mut to = at;
        for chunk in &self.chunks {
            bytes[to..to + 16].copy_from_slice(chunk);
            to += 16;
        }
        at + self.length
    }
}

/// What the messages of a group of rows may take: mostly the same for all of them.
#[derive(Default)]
pub struct Sizes {
    rows: usize,
    all: usize,
    /// What each row may take besides; empty if none does.
    more: Vec<usize>,
}

impl Sizes {
    /// Begin with `all` bytes for each row.
    pub fn begin(&mut self, rows: usize, all: usize) {
        (self.rows, self.all) = (rows, all);
        self.more.clear();
    }

    /// Add so many bytes to each row.
    pub fn add(&mut self, bytes: usize) {
        self.all += bytes;
    }

    /// What each row may take besides, to be added to.
    pub fn by_row(&mut self) -> &mut [usize] {
        self.more.resize(self.rows, 0);
        &mut self.more
    }

    /// Leave out the last rows, so that the slots of the others take at most so many bytes, or one is left.
    pub fn fit(&mut self, bytes: usize) -> usize {
        if self.more.is_empty() {
            self.rows = self.rows.min((bytes / slot_size(self.all)).max(1));
        } else {
            let mut total = 0;
            let fitting = self.more.iter().take_while(|more| {
                total += slot_size(self.all + **more);
                total <= bytes
            });
            self.rows = fitting.count().max(1);
            self.more.truncate(self.rows);
        }
        self.rows
    }
}

/// Whether the processor has the instructions that encode eight values at a time.
fn processor_has_kernels() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Where each row's message goes on, or what is made ready for it. On cache lines of their own, so that
/// those of several rows are read and written at once.
#[repr(align(64))]
pub struct ByRow<T>(pub [T; GROUP]);

impl<T: Copy + Default> Default for ByRow<T> {
    fn default() -> Self {
        Self([T::default(); GROUP])
    }
}

/// The first of the batch's rows that make a group, and which of them have a value, as bits.
pub type Rows = (usize, u64);

/// Values that are encoded, but not written yet.
#[derive(Default)]
pub struct Staged {
    pub values: ByRow<u128>,
    pub places: ByRow<usize>,
    /// Where texts go, behind what is made ready.
    pub texts: ByRow<usize>,
}

/// The slots of one group of rows; reused from group to group.
#[derive(Default)]
pub struct Slots {
    blocks: Vec<Block>,
    starts: Vec<usize>,
    cursors: ByRow<usize>,
    staged: Staged,
    rows: usize,
    /// Whether eight values may be encoded at a time, in instructions that the processor has.
    wide: bool,
}

impl Slots {
    /// Let go of memory beyond so many bytes; no group is under way.
    pub fn give_back(&mut self, kept: usize) {
        if self.blocks.capacity() * size_of::<Block>() > kept {
            self.blocks = Vec::new();
        }
    }

    /// Encode eight values at a time from now on, if the processor has the instructions, or one by one.
    pub fn choose(&mut self, wide: bool) {
        self.wide = wide && processor_has_kernels();
    }

    /// Which of the batch's rows `first..` have a value, as bits, if they may be written eight at a time.
    pub fn by_eight(&self, first: usize, name: &Name, nulls: Option<&NullBuffer>) -> Option<u64> {
        let bits = match present(nulls, first, self.rows) {
            None => all(self.rows),
            // A row without a value is scribbled on as if it had one: there is room for a short name.
            Some(rows) if 2 * rows.count() >= self.rows && name.chunks.len() == 1 => rows.bits(),
            Some(_) => return None,
        };
        self.wide.then_some(bits)
    }

    /// The bytes of all slots, and where each row's message goes on.
    pub fn cursors(&mut self) -> (&mut [u8], &mut [usize]) {
        (self.blocks.as_flattened_mut(), &mut self.cursors.0[..self.rows])
    }

    /// The same, and memory for what is made ready.
    pub fn staged(&mut self) -> (&mut [u8], &mut [usize], &mut Staged) {
        (self.blocks.as_flattened_mut(), &mut self.cursors.0[..self.rows], &mut self.staged)
    }

    /// Lay out a slot for each row that holds its bytes and the padding after them.
    pub fn arrange(&mut self, sizes: &Sizes) {
        self.starts.clear();
        let mut end = 0;
        if sizes.more.is_empty() {
            let size = slot_size(sizes.all);
            end = size * sizes.rows;
            self.starts.extend((0..end).step_by(size));
        }
        for more in &sizes.more {
            self.starts.push(end);
            end += slot_size(sizes.all + *more);
        }
        if self.blocks.len() * 64 < end {
            self.blocks.resize(end / 64, [0; 64]);
        }
        self.rows = self.starts.len();
        self.cursors.0[..self.rows].copy_from_slice(&self.starts);
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Pad all messages and give their blocks.
    pub fn pad(&mut self, keying: &Keying, spans: &mut Vec<Span>) {
        spans.clear();
        let wide = self.wide;
        let (bytes, starts, ends) = self.messages();
        #[cfg(target_arch = "x86_64")]
        if wide {
            // SAFETY: slots are wide only where the processor has the instructions.
            return unsafe { pad_all(bytes, (starts, ends), keying.before(), spans) };
        }
        for (start, end) in starts.iter().zip(ends) {
            spans.push(pad(bytes, *start, *end, keying));
        }
    }

    /// The bytes of all slots, and where each row's message starts and ends.
    fn messages(&mut self) -> (&mut [u8], &[usize], &[usize]) {
        (self.blocks.as_flattened_mut(), &self.starts, &self.cursors.0[..self.rows])
    }

    /// Write at the cursor of each row, in the rows' order: `put(row, bytes, at)` gives the new cursor.
    #[inline(always)]
    pub fn each(&mut self, mut put: impl FnMut(usize, &mut [u8], usize) -> usize) {
        let (bytes, cursors) = self.cursors();
        for (row, cursor) in cursors.iter_mut().enumerate() {
            *cursor = put(row, bytes, *cursor);
        }
    }

    /// Write a name and a value for each row of the group from `done` on that is `present`.
    #[inline(always)]
    pub fn fill_from(&mut self, done: usize, present: u64, first: usize, name: &Name, values: &impl Put) {
        let (bytes, cursors) = self.cursors();
        for (row, cursor) in cursors.iter_mut().enumerate().skip(done) {
            if present >> row & 1 != 0 {
                let at = name.put(bytes, *cursor);
                *cursor = values.put(first + row, bytes, at);
            }
        }
    }

    /// Write a name and a value for each of the batch's rows `first..` that has one.
    #[inline(always)]
    pub fn fill(&mut self, first: usize, name: &Name, nulls: Option<&NullBuffer>, values: &impl Put) {
        match (present(nulls, first, self.rows), name.chunks.as_slice()) {
            // Nearly all columns: a short name, kept in a register.
            (None, [chunk]) => {
                let (chunk, length) = (*chunk, name.length);
                self.each(|row, bytes, at| {
                    bytes[at..at + 16].copy_from_slice(&chunk);
                    values.put(first + row, bytes, at + length)
                });
            }
            (None, _) => self.each(|row, bytes, at| {
                let at = name.put(bytes, at);
                values.put(first + row, bytes, at)
            }),
            (Some(rows), _) => {
                let (bytes, cursors) = self.cursors();
                for row in rows {
                    let at = name.put(bytes, cursors[row]);
                    cursors[row] = values.put(first + row, bytes, at);
                }
            }
        }
    }
}

/// Writes the values of a column. A trait, since a closure would not be inlined into both loops.
pub trait Put {
    /// Write the value of the batch's row `row` at `bytes[at..]`; gives where it ends.
    fn put(&self, row: usize, bytes: &mut [u8], at: usize) -> usize;
}

/// The bytes that a slot takes: whole blocks, its padding included.
///
/// Their number is odd: at powers of two, the rows would contend for a few places of the first cache.
fn slot_size(size: usize) -> usize {
    ((size + PADDING_ROOM).div_ceil(64) | 1) * 64
}

/// What `copy` may write for a value of `length` bytes.
pub fn copy_room(length: usize) -> usize {
    length.max(SHORT)
}

/// Copy `source[from..from + length]` to `bytes[at..]`, scribbling on up to `copy_room(length)` bytes.
#[inline(always)]
pub fn copy(source: &[u8], from: usize, length: usize, bytes: &mut [u8], at: usize) -> usize {
    match source.get(from..from + SHORT) {
        Some(short) if length <= SHORT => bytes[at..at + SHORT].copy_from_slice(short),
        _ => bytes[at..at + length].copy_from_slice(&source[from..from + length]),
    }
    at + length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the slots start, and how many bytes they take.
    fn arranged(sizes: &Sizes) -> (Vec<usize>, usize) {
        let mut slots = Slots::default();
        slots.arrange(sizes);
        let (bytes, starts, _) = slots.messages();
        (starts.to_vec(), bytes.len())
    }

    #[test]
    fn rows_that_take_the_same_are_laid_out_like_others() {
        let (mut same, mut by_row) = (Sizes::default(), Sizes::default());
        for (rows, all) in [(1, 9), (64, 100), (64, 1000), (7, 300_000)] {
            same.begin(rows, all);
            same.add(40);
            by_row.begin(rows, all);
            by_row.by_row().iter_mut().for_each(|size| *size += 40);
            for bytes in [1 << 30, 1 << 17, 1000, 0] {
                assert_eq!(same.fit(bytes), by_row.fit(bytes));
                assert_eq!(arranged(&same), arranged(&by_row));
            }
        }
    }

    #[test]
    fn long_rows_have_longer_slots_and_shorten_the_group() {
        let mut sizes = Sizes::default();
        sizes.begin(3, 20);
        sizes.by_row()[1] += 1000;
        sizes.add(10);
        let slot = |size: usize| ((size + PADDING_ROOM).div_ceil(64) / 2 * 2 + 1) * 64;
        let starts = vec![0, slot(30), slot(30) + slot(1030)];
        assert_eq!(arranged(&sizes), (starts, 2 * slot(30) + slot(1030)));
        assert_eq!(sizes.fit(slot(30) + slot(1030)), 2);
        assert_eq!(sizes.fit(slot(1030)), 1);
    }
}
