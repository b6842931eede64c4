//! Numbers of a Parquet page in the hybrid of runs and packed bits, looked up row by row.
//!
//! The encoding is `RLE` of the Parquet format's `Encodings.md`: definition levels and the indexes into a
//! dictionary are written in it.

/// Some equal numbers, or some packed ones.
#[derive(Clone, Copy)]
enum Run<'a> {
    Equal(u32),
    Packed(&'a [u8]),
}

/// Looks numbers up at places that ascend.
pub struct Numbers<'a> {
    rest: &'a [u8],
    /// Bits of a number; at most 32.
    width: u32,
    /// The run at hand, where it begins and where it ends.
    run: Run<'a>,
    start: usize,
    end: usize,
}

impl<'a> Numbers<'a> {
    /// None for a width that no page has.
    pub fn new(encoded: &'a [u8], width: u32) -> Option<Self> {
        (width <= 32).then_some(Self { rest: encoded, width, run: Run::Equal(0), start: 0, end: 0 })
    }

    /// Give the number at a place, which is not before the last one; None past the end or where it is damaged.
    pub fn at(&mut self, place: usize) -> Option<u32> {
        while place >= self.end {
            self.next_run()?;
        }
        match self.run {
            Run::Equal(number) => Some(number),
            Run::Packed(bytes) => unpacked(bytes, place.checked_sub(self.start)?, self.width),
        }
    }

    /// Whether the first so many numbers are one run of this number.
    pub fn all(&mut self, count: usize, number: u32) -> bool {
        self.at(0).is_some() && self.end >= count && matches!(self.run, Run::Equal(n) if n == number)
    }

    fn next_run(&mut self) -> Option<()> {
        let header = self.varint()?;
        let count = usize::try_from(header >> 1).ok()?;
        let (run, count) = if header & 1 == 0 {
            let mut number = [0; 4];
            let bytes = self.take(self.width.div_ceil(8) as usize)?;
            number[..bytes.len()].copy_from_slice(bytes);
            (Run::Equal(u32::from_le_bytes(number)), count)
        } else {
            // Groups of eight; what the last page leaves off of them is asked for by nobody.
            let bytes = count.checked_mul(self.width as usize)?.min(self.rest.len());
            (Run::Packed(self.take(bytes)?), count.checked_mul(8)?)
        };
        self.run = run;
        self.start = self.end;
        self.end = self.end.checked_add(count)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}

fn unpacked(bytes: &[u8], index: usize, width: u32) -> Option<u32> {
    let bit = index.checked_mul(width as usize)?;
    let from = bytes.get(bit / 8..)?;
    let mut word = [0; 8];
    let count = from.len().min(8);
    word[..count].copy_from_slice(&from[..count]);
    let end = bit % 8 + width as usize;
    let number = u64::from_le_bytes(word) >> (bit % 8) & ((1 << width) - 1);
    (end <= 8 * count).then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_bits_follow_each_other() {
        // Five times 2, then eight packed by two bits: 0 1 2 3 0 1 2 3, then three times 1.
        let encoded = [10, 2, 3, 0b1110_0100, 0b1110_0100, 6, 1];
        let expected = [2, 2, 2, 2, 2, 0, 1, 2, 3, 0, 1, 2, 3, 1, 1, 1];
        let mut numbers = Numbers::new(&encoded, 2).unwrap();
        for (place, number) in expected.iter().enumerate() {
            assert_eq!(numbers.at(place), Some(*number), "at {place}");
        }
        assert_eq!(numbers.at(expected.len()), None);
        let mut some = Numbers::new(&encoded, 2).unwrap();
        assert_eq!((some.at(3), some.at(8), some.at(15)), (Some(2), Some(3), Some(1)));
    }

    #[test]
    fn a_run_that_holds_all_is_told() {
        let encoded = [10, 2];
        assert!(Numbers::new(&encoded, 2).unwrap().all(5, 2));
        assert!(!Numbers::new(&encoded, 2).unwrap().all(6, 2));
        assert!(!Numbers::new(&encoded, 2).unwrap().all(5, 1));
    }

    #[test]
    fn damaged_numbers_are_none() {
        for encoded in [&[][..], &[0x80], &[3], &[3, 0], &[10], &[0, 0], &[0xff; 12]] {
            let mut numbers = Numbers::new(encoded, 2).unwrap();
            assert_eq!(numbers.at(7), None, "{encoded:?}");
        }
        assert!(Numbers::new(&[], 33).is_none());
    }
}
