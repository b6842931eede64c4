//! Room for the messages of a few rows, side by side: columns are encoded one after another, each
//! in one tight loop over the rows, and every row's message grows in its own slot.

use arrow_buffer::NullBuffer;

use crate::present::present;
use crate::sha::{Block, PADDING_ROOM};

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

    #[inline(always)]
    fn put(&self, bytes: &mut [u8], at: usize) -> usize {
        let mut to = at;
        for chunk in &self.chunks {
            bytes[to..to + 16].copy_from_slice(chunk);
            to += 16;
        }
        at + self.length
    }
}

/// The slots of one group of rows; reused from group to group.
#[derive(Default)]
pub struct Slots {
    blocks: Vec<Block>,
    starts: Vec<usize>,
    cursors: Vec<usize>,
}

impl Slots {
    /// Lay out a slot for each row that holds `sizes[row]` bytes and the padding after them.
    pub fn arrange(&mut self, sizes: &[usize]) {
        self.starts.clear();
        let mut end = 0;
        for size in sizes {
            self.starts.push(end);
            end += slot_size(*size);
        }
        if self.blocks.len() * 64 < end {
            self.blocks.resize(end / 64, [0; 64]);
        }
        self.cursors.clone_from(&self.starts);
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The bytes of all slots, and where each row's message starts and ends.
    pub fn messages(&mut self) -> (&mut [u8], &[usize], &[usize]) {
        (self.blocks.as_flattened_mut(), &self.starts, &self.cursors)
    }

    /// Write at the cursor of each row, in the rows' order: `put(row, bytes, at)` gives the new cursor.
    #[inline(always)]
    pub fn each(&mut self, mut put: impl FnMut(usize, &mut [u8], usize) -> usize) {
        let bytes = self.blocks.as_flattened_mut();
        for (row, cursor) in self.cursors.iter_mut().enumerate() {
            *cursor = put(row, bytes, *cursor);
        }
    }

    /// Write a name and a value for each of the batch's rows `first..` that has one.
    #[inline(always)]
    pub fn fill(&mut self, first: usize, name: &Name, nulls: Option<&NullBuffer>, values: &impl Put) {
        match (present(nulls, first, self.cursors.len()), name.chunks.as_slice()) {
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
                let bytes = self.blocks.as_flattened_mut();
                for row in rows {
                    let at = name.put(bytes, self.cursors[row]);
                    self.cursors[row] = values.put(first + row, bytes, at);
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
pub fn slot_size(size: usize) -> usize {
    (size + PADDING_ROOM).next_multiple_of(64)
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
