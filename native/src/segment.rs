//! A sorted segment of a baseline, in the memory that it is mapped to, and a radix index over it.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_buffer::Buffer;
use rayon::ThreadPool;

use crate::index::Index;
use crate::sha::Digest;

/// A lookup of so few keys that reading the whole segment for an index would cost more.
const COLD_SHARE: usize = 256;

/// A bucket larger than this is searched by halves; uniform signatures never fill one so far.
const LARGE_BUCKET: usize = 16;

/// The columns of one batch of a segment, all of one length.
pub struct Chunk {
    pub keys: Buffer,
    pub data: Buffer,
    pub flags: Buffer,
}

/// Rows sorted by key signature, in one or more chunks.
pub struct Segment {
    chunks: Vec<Chunk>,
    /// Where each chunk begins, and the end of the last.
    starts: Vec<usize>,
    /// Log2 of the rows in each chunk, if all but the last have the same power of two.
    chunk_bits: Option<u32>,
    /// Whether any row has a flag.
    flagged: bool,
    index: OnceLock<Result<Index, String>>,
    probed: AtomicUsize,
}

/// The first eight bytes of a signature, which sort like it.
#[inline(always)]
pub fn prefix(key: &Digest) -> u64 {
    u64::from_be_bytes(*key.first_chunk().expect("a signature is longer"))
}

/// Ask for the memory of a value ahead of its use.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere; the address is that of a live value.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

impl Segment {
    pub fn new(chunks: Vec<Chunk>) -> Result<Self, String> {
        let mut starts = vec![0];
        let mut end = 0;
        for chunk in &chunks {
            let rows = chunk.flags.len();
            if chunk.keys.len() != rows * 32 || chunk.data.len() != rows * 32 {
                return Err("the columns of a segment differ in length".to_owned());
            }
            end += rows;
            starts.push(end);
        }
        if end >= u32::MAX as usize {
            return Err(format!("a segment has {end} rows, more than one can hold"));
        }
        let size = starts.get(1).map_or(1, |first: &usize| first.next_power_of_two());
        let even = chunks.split_last().is_none_or(|(last, before)| {
            last.flags.len() <= size && before.iter().all(|chunk| chunk.flags.len() == size)
        });
        let chunk_bits = even.then(|| size.ilog2());
        let flagged = chunks.iter().any(|chunk| chunk.flags.iter().any(|flags| *flags != 0));
        let (index, probed) = (OnceLock::new(), AtomicUsize::new(0));
        Ok(Self { chunks, starts, chunk_bits, flagged, index, probed })
    }

    pub fn len(&self) -> usize {
        self.starts[self.chunks.len()]
    }

    pub fn keys(&self) -> impl Iterator<Item = &Digest> {
        self.chunks.iter().flat_map(|chunk| chunk.keys.as_chunks::<32>().0)
    }

    /// The chunk of a row, and the row in it.
    #[inline(always)]
    fn place(&self, row: usize) -> (&Chunk, usize) {
        let at = match self.chunk_bits {
            Some(bits) => row >> bits,
            None => self.starts.partition_point(|start| *start <= row) - 1,
        };
        (&self.chunks[at], row - self.starts[at])
    }

    #[inline(always)]
    pub fn key(&self, row: usize) -> &Digest {
        let (chunk, row) = self.place(row);
        &chunk.keys.as_chunks::<32>().0[row]
    }

    /// The data signature of a row.
    #[inline(always)]
    pub fn data(&self, row: usize) -> &Digest {
        let (chunk, row) = self.place(row);
        &chunk.data.as_chunks::<32>().0[row]
    }

    /// The data signature and the flags of a row.
    #[inline(always)]
    pub fn entry(&self, row: usize) -> (&Digest, u8) {
        let (chunk, row) = self.place(row);
        // Where no row has any, their memory is not touched.
        let flags = if self.flagged { chunk.flags[row] } else { 0 };
        (&chunk.data.as_chunks::<32>().0[row], flags)
    }

    /// Get ready for a lookup of `count` keys; `Err` if the segment is found not to be sorted.
    ///
    /// Not from a thread of a pool: others of it may be needed to get ready, and wait for this.
    pub fn prepare(&self, count: usize, pool: &ThreadPool) -> Result<(), String> {
        let before = self.probed.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) > self.len() / COLD_SHARE {
            self.index.get_or_init(|| self.build(pool)).as_ref().map_err(Clone::clone)?;
        }
        Ok(())
    }

    fn build(&self, pool: &ThreadPool) -> Result<Index, String> {
        Index::build(self.len(), |row| self.key(row), |rows| self.slices(rows), pool)
            .ok_or_else(|| "a segment of the baseline is not sorted".to_owned())
    }

    /// The keys of a range of rows, chunk by chunk.
    fn slices(&self, rows: Range<usize>) -> impl Iterator<Item = &[Digest]> {
        self.chunks.iter().zip(&self.starts).map(move |(chunk, start)| {
            let keys = chunk.keys.as_chunks::<32>().0;
            let within = |row: usize| row.saturating_sub(*start).min(keys.len());
            &keys[within(rows.start)..within(rows.end)]
        })
    }

    /// Find some keys: `rows[i]` becomes the row of `keys[i]`, if `wanted(i)` and the segment has it.
    ///
    /// Each step is made for all keys before the next one: their cache misses then overlap.
    pub fn find<const N: usize>(&self, keys: &[Digest], wanted: [bool; N], rows: &mut [Option<usize>; N]) {
        if self.len() == 0 {
            return;
        }
        let Some(Ok(index)) = self.index.get() else {
            for (i, key) in keys.iter().enumerate() {
                if wanted[i] {
                    rows[i] = self.find_cold(key);
                }
            }
            return;
        };
        for key in keys {
            prefetch(index.line(prefix(key)));
        }
        let mut buckets: [Range<usize>; N] = std::array::from_fn(|_| 0..0);
        for (i, key) in keys.iter().enumerate() {
            if wanted[i] {
                buckets[i] = index.bucket(prefix(key));
                if !buckets[i].is_empty() {
                    prefetch(self.key(buckets[i].start));
                    prefetch(self.key(buckets[i].end - 1));
                }
            }
        }
        for (i, key) in keys.iter().enumerate() {
            rows[i] = self.search(buckets[i].clone(), key);
            if let Some(row) = rows[i] {
                prefetch(self.data(row));
            }
        }
    }

    /// Find unchanged rows by their data alone: `rows[i]` becomes the row of `data[i]`, if there is one where
    /// `keys[i]` belongs.
    ///
    /// The data signature is made of the key fields, too, so that a row with the same one has the same key;
    /// keys, which lie elsewhere in memory, needn't be fetched for the most records of most runs.
    pub fn find_unchanged<const N: usize>(
        &self,
        (keys, data): (&[Digest], &[Digest]),
        wanted: [bool; N],
        rows: &mut [Option<usize>; N],
    ) {
        let Some(Ok(index)) = self.index.get() else { return };
        for key in keys {
            prefetch(index.line(prefix(key)));
        }
        let mut buckets: [Range<usize>; N] = std::array::from_fn(|_| 0..0);
        for (i, key) in keys.iter().enumerate() {
            if wanted[i] {
                buckets[i] = index.bucket(prefix(key));
                if !buckets[i].is_empty() {
                    prefetch(self.data(buckets[i].start));
                    prefetch(self.data(buckets[i].end - 1));
                }
            }
        }
        for ((bucket, data), row) in buckets.into_iter().zip(data).zip(rows) {
            if bucket.len() <= LARGE_BUCKET {
                *row = bucket.into_iter().find(|at| self.data(*at) == data);
            }
        }
    }

    #[inline(always)]
    fn search(&self, bucket: Range<usize>, key: &Digest) -> Option<usize> {
        if bucket.len() > LARGE_BUCKET {
            return self.halve(bucket, key);
        }
        let wanted = prefix(key);
        for row in bucket {
            let candidate = self.key(row);
            if prefix(candidate) >= wanted {
                if candidate == key {
                    return Some(row);
                }
                if prefix(candidate) > wanted {
                    return None;
                }
            }
        }
        None
    }

    fn halve(&self, mut range: Range<usize>, key: &Digest) -> Option<usize> {
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => range.start = middle + 1,
                std::cmp::Ordering::Greater => range.end = middle,
            }
        }
        None
    }

    /// Find a key without an index: guess from its value, as signatures are uniform, then halve.
    fn find_cold(&self, key: &Digest) -> Option<usize> {
        let wanted = prefix(key);
        let mut range = 0..self.len();
        let (mut least, mut most) = (0_u64, u64::MAX);
        // Each guess is off by about the square root of the range: a few narrow it to some rows.
        for _ in 0..6 {
            if range.len() <= LARGE_BUCKET || wanted < least || wanted > most {
                break;
            }
            let share = u128::from(wanted - least) * range.len() as u128 / (u128::from(most - least) + 1);
            let slack = range.len().isqrt();
            let low = range.start + (share as usize).saturating_sub(slack);
            let high = (range.start + share as usize + slack).min(range.end - 1);
            let (low_prefix, high_prefix) = (prefix(self.key(low)), prefix(self.key(high)));
            if low_prefix == wanted || high_prefix == wanted {
                break; // others of this prefix may stand on either side
            }
            if low_prefix > wanted {
                (range.end, most) = (low, low_prefix);
            } else if high_prefix < wanted {
                (range.start, least) = (high + 1, high_prefix);
            } else {
                (range, least, most) = (low..high + 1, low_prefix, high_prefix);
            }
        }
        self.halve(range, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha::digest;

    fn keys(count: u32) -> Vec<Digest> {
        let mut keys: Vec<Digest> = (0..count).map(|i| digest(&i.to_le_bytes())).collect();
        keys.sort_unstable();
        keys
    }

    fn segment(keys: &[Digest], chunk: usize) -> Segment {
        Segment::new(keys.chunks(chunk).map(chunk_of).collect()).expect("its columns agree")
    }

    fn chunk_of(keys: &[Digest]) -> Chunk {
        Chunk {
            keys: Buffer::from_vec(keys.as_flattened().to_vec()),
            data: Buffer::from_vec(keys.as_flattened().to_vec()),
            flags: Buffer::from_vec(vec![0_u8; keys.len()]),
        }
    }

    fn threads() -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads start")
    }

    fn found(segment: &Segment, key: &Digest) -> Option<usize> {
        let mut rows = [None];
        segment.find(std::slice::from_ref(key), [true], &mut rows);
        rows[0]
    }

    #[test]
    fn finds_each_key_with_and_without_the_index() {
        for count in [0, 1, 2, 17, 1000, 5000] {
            let keys = keys(count);
            let segment = segment(&keys, 700);
            for _ in 0..2 {
                for (row, key) in keys.iter().enumerate() {
                    assert_eq!(found(&segment, key), Some(row));
                }
                for other in 0..500_u32 {
                    assert_eq!(found(&segment, &digest(&(other + 1_000_000).to_le_bytes())), None);
                }
                for edge in [[0; 32], [0xff; 32]] {
                    assert_eq!(found(&segment, &edge), None);
                }
                segment.prepare(usize::MAX, &threads()).expect("it is sorted");
            }
        }
    }

    #[test]
    fn skewed_keys_are_found_among_others() {
        // More of one prefix than a line of the index can count, at its beginning, its end and between.
        let skewed = [0, 7, 0xff].iter().flat_map(|byte| {
            (0..300_u16).map(|i| {
                let mut key = [*byte; 32];
                key[8..10].copy_from_slice(&i.to_be_bytes());
                key
            })
        });
        for others in [0, 3000] {
            let mut keys: Vec<Digest> = keys(others).into_iter().chain(skewed.clone()).collect();
            keys.sort_unstable();
            let segment = segment(&keys, 100);
            assert_eq!(found(&segment, &keys[123]), Some(123));
            segment.prepare(usize::MAX, &threads()).expect("it is sorted");
            for (row, key) in keys.iter().enumerate() {
                assert_eq!(found(&segment, key), Some(row));
            }
        }
    }

    #[test]
    fn chunks_of_any_lengths_are_found() {
        for lengths in [&[8, 20][..], &[8, 8, 20], &[1, 2], &[64, 65], &[8, 8, 3], &[7, 8, 9]] {
            let keys = keys(lengths.iter().sum());
            let mut rest = keys.as_slice();
            let chunks = lengths.iter().map(|length| {
                let (chunk, others) = rest.split_at(*length as usize);
                rest = others;
                chunk_of(chunk)
            });
            let segment = Segment::new(chunks.collect()).expect("its columns agree");
            for _ in 0..2 {
                for (row, key) in keys.iter().enumerate() {
                    assert_eq!(found(&segment, key), Some(row));
                }
                segment.prepare(usize::MAX, &threads()).expect("it is sorted");
            }
        }
    }

    #[test]
    fn rows_that_several_threads_index_are_found() {
        // Many of one prefix where the second part of the index begins, and before the third.
        let rows = 500_000;
        let mut keys: Vec<Digest> = (0..rows)
            .map(|row: u64| {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&(row * (u64::MAX / rows)).to_be_bytes());
                key
            })
            .collect();
        for (from, to) in [(241_400, 242_000), (482_600, 483_200)] {
            for row in from..to {
                keys[row] = keys[from];
                keys[row][8..16].copy_from_slice(&row.to_be_bytes());
            }
        }
        let indexed = segment(&keys, 1 << 16);
        indexed.prepare(usize::MAX, &threads()).expect("it is sorted");
        for row in (0..keys.len()).step_by(97).chain(241_301..242_099).chain(482_501..484_000) {
            assert_eq!(found(&indexed, &keys[row]), Some(row));
        }
        for row in [1, 241_400, 241_401, 242_000, 482_900, keys.len() - 1] {
            let repeated = keys[row - 1];
            let before = std::mem::replace(&mut keys[row], repeated);
            assert!(segment(&keys, 1 << 16).prepare(usize::MAX, &threads()).is_err());
            keys[row] = before;
        }
    }

    #[test]
    fn an_unsorted_segment_is_refused_and_never_read_out_of_bounds() {
        let mut keys = keys(3000);
        keys.reverse();
        let segment = segment(&keys, 1000);
        for key in &keys {
            found(&segment, key);
        }
        assert!(segment.prepare(usize::MAX, &threads()).is_err());
        found(&segment, &keys[5]);
    }
}
