//! Which rows of a group have a value, as bits: wide records are mostly null, and only what is there
//! should cost.

use arrow_buffer::NullBuffer;

/// Rows in one group at most: the bits of a word.
pub const GROUP: usize = 64;

/// The rows `first..first + rows` of a column that are not null, the first one's bit lowest; None if no
/// row of the column is null.
#[inline]
pub fn present(nulls: Option<&NullBuffer>, first: usize, rows: usize) -> Option<Rows> {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0)?;
    let at = nulls.offset() + first;
    let bytes = &nulls.validity()[at / 8..(at + rows).div_ceil(8)];
    let mut word = [0; 16];
    word[..bytes.len()].copy_from_slice(bytes);
    let bits = (u128::from_le_bytes(word) >> (at % 8)) as u64;
    Some(Rows(bits & all(rows)))
}

/// So many lowest bits.
#[inline(always)]
pub fn all(rows: usize) -> u64 {
    debug_assert!(rows <= GROUP, "a group has no more rows than a word has bits");
    if rows >= GROUP { u64::MAX } else { (1 << rows) - 1 }
}

/// Rows of a group, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows(u64);

impl Rows {
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// One bit for each row, the first one's lowest.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The others of a group of so many rows.
    pub fn others(self, rows: usize) -> Self {
        Self(!self.0 & all(rows))
    }
}

impl Iterator for Rows {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let row = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_buffer::BooleanBuffer;

    #[test]
    fn agrees_with_asking_row_by_row() {
        let valid: Vec<bool> = (0..400_usize).map(|i| i * i % 7 < 3).collect();
        let whole = NullBuffer::new(BooleanBuffer::from(valid));
        for offset in [0, 1, 7, 8, 63, 64, 65] {
            let nulls = whole.slice(offset, 300);
            for (first, rows) in [(0, 64), (3, 64), (236, 64), (290, 10), (5, 1), (7, 0), (299, 1)] {
                let found = present(Some(&nulls), first, rows).expect("some are null");
                let expected: Vec<usize> = (0..rows).filter(|row| nulls.is_valid(first + row)).collect();
                assert_eq!(found.collect::<Vec<_>>(), expected, "{offset} {first} {rows}");
                assert_eq!(found.count() + found.others(rows).count(), rows);
            }
        }
    }

    #[test]
    fn columns_without_nulls_have_no_bits() {
        assert_eq!(present(None, 0, 64), None);
        assert_eq!(present(Some(&NullBuffer::new_valid(100)), 0, 64), None);
    }
}
