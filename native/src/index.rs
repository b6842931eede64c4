//! A radix index over sorted signatures: where the rows of each key prefix begin, in about a byte a row.

use std::ops::Range;

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::segment::prefix;
use crate::sha::Digest;

/// Buckets whose offsets fill one line of the processor's cache, beside the number of its first row; each is
/// of one row on average, and uniform signatures fill them evenly.
const BUCKETS: usize = 59;

/// Lines that one thread fills at a time.
const TASK: usize = 4096;

/// An offset that its byte can't hold: the true one is this or more.
const MOST: u8 = u8::MAX;

/// The buckets of one stretch of prefixes; one look at memory finds a key's.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    /// The first row of the first bucket.
    first: u32,
    /// Where each bucket begins, counted from `first`, and where the last one ends; `MOST` is a lower bound.
    offsets: [u8; BUCKETS + 1],
}

/// Where the rows of each key prefix begin.
pub struct Index {
    /// One more than there are: the last has the number of rows.
    lines: Vec<Line>,
}

/// The line of a prefix, of so many, and the bucket in it: both ascend with the prefix.
#[inline(always)]
fn place(prefix: u64, lines: usize) -> (usize, usize) {
    let product = u128::from(prefix) * lines as u128;
    let rest = u128::from(product as u64) * BUCKETS as u128;
    ((product >> 64) as usize, (rest >> 64) as usize)
}

impl Index {
    /// Index so many rows; None if their signatures don't ascend.
    ///
    /// `key` gives the signature of a row, and `keys` those of a range of rows, in one or more slices.
    pub fn build<'a, K: Iterator<Item = &'a [Digest]>>(
        rows: usize,
        key: impl Fn(usize) -> &'a Digest + Sync,
        keys: impl Fn(Range<usize>) -> K + Sync,
        pool: &ThreadPool,
    ) -> Option<Self> {
        let count = rows.div_ceil(BUCKETS).max(1);
        let mut lines = vec![Line { first: 0, offsets: [0; BUCKETS + 1] }; count + 1];
        lines[count].first = u32::try_from(rows).ok()?;
        // Where the rows of each task begin. In rows out of order these may be any; the tasks find that.
        let starts: Vec<usize> = (0..count)
            .step_by(TASK)
            .map(|line| first_row(rows, |row| place(prefix(key(row)), count).0 < line))
            .chain([rows])
            .collect();
        let fill = |(task, lines): (usize, &mut [Line])| {
            let range = starts[task]..starts[task + 1];
            let first = task * TASK;
            let mut before = range.start.checked_sub(1).map(|row| (prefix(key(row)), key(row)));
            let (mut row, mut filled) = (range.start as u32, 0);
            lines[0].first = row;
            for keys in keys(range) {
                for key in keys {
                    let this = (prefix(key), key);
                    if before.is_some_and(|before| before >= this) {
                        return None;
                    }
                    before = Some(this);
                    let (line, bucket) = place(this.0, count);
                    let line = line.checked_sub(first)?;
                    let held = &mut lines.get_mut(line)?.offsets[bucket + 1];
                    *held = held.saturating_add(1);
                    while filled < line {
                        filled += 1;
                        lines[filled].first = row;
                    }
                    row += 1;
                }
            }
            lines[filled + 1..].iter_mut().for_each(|line| line.first = row);
            for line in lines {
                let mut before = 0_u8;
                for offset in &mut line.offsets {
                    before = before.saturating_add(*offset);
                    *offset = before;
                }
            }
            Some(())
        };
        // Every row is in the range of one task, which holds it against the row before.
        if !starts.is_sorted() {
            return None;
        }
        pool.install(|| lines[..count].par_chunks_mut(TASK).enumerate().try_for_each(fill))?;
        Some(Self { lines })
    }

    /// The address of what `bucket` will read.
    #[inline(always)]
    pub fn line(&self, prefix: u64) -> &impl Sized {
        &self.lines[place(prefix, self.lines.len() - 1).0]
    }

    /// The rows among which those of a prefix are.
    #[inline(always)]
    pub fn bucket(&self, prefix: u64) -> Range<usize> {
        let (at, bucket) = place(prefix, self.lines.len() - 1);
        let line = &self.lines[at];
        let (start, end) = (line.offsets[bucket], line.offsets[bucket + 1]);
        let first = line.first as usize;
        let end = if end == MOST { self.lines[at + 1].first as usize } else { first + usize::from(end) };
        first + usize::from(start)..end
    }
}

/// The first row of which `below` is not true.
fn first_row(rows: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
