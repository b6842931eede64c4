//! Columns whose encoded values have a small upper bound: numbers, booleans, times, UUIDs.

use arrow_buffer::{ArrowNativeType, BooleanBuffer, IntervalMonthDayNano, NullBuffer, ScalarBuffer, i256};

use crate::cbor::{
    ARRAY, DATE_TAG, DECIMAL_ROOM, DURATION_TAG, FALSE, FLOAT_ROOM, HEAD_ROOM, MOMENT_ROOM, TEXT, TIME_TAG,
    TRUE, put_decimal, put_float, put_int, put_moment, put_small_decimal, put_uint,
};
#[cfg(target_arch = "x86_64")]
use crate::cell_wide;
use crate::slots::{Name, Put, Rows, Slots};

/// The largest room of any cell.
const MOST: usize = DECIMAL_ROOM;

/// Encodes the value of a row, null or not, into at most `ROOM` bytes.
pub trait Cell: Send + Sync {
    const ROOM: usize;

    /// Write the value to the front of `out`, which has `ROOM` bytes; gives its length.
    fn put(&self, row: usize, out: &mut [u8]) -> usize;

    /// Write the values of a group eight at a time, if there is a kernel for it, and give how many rows are
    /// written.
    ///
    /// # Safety
    ///
    /// The processor has the instructions of the kernels.
    unsafe fn fill_by_eight(&self, _rows: Rows, _name: &Name, _slots: &mut Slots) -> usize {
        0
    }
}

/// A column of cells, its type chosen once per batch.
pub trait Cells: Send + Sync {
    fn room(&self) -> usize;
    fn fill(&self, first: usize, name: &Name, nulls: Option<&NullBuffer>, slots: &mut Slots);
    fn append(&self, row: usize, out: &mut Vec<u8>);
}

pub struct Whole<'a, C>(pub &'a C);

impl<C: Cell> Put for Whole<'_, C> {
    #[inline(always)]
    fn put(&self, row: usize, bytes: &mut [u8], at: usize) -> usize {
        at + self.0.put(row, &mut bytes[at..at + C::ROOM])
    }
}

impl<C: Cell> Cells for C {
    fn room(&self) -> usize {
        C::ROOM
    }

    fn fill(&self, first: usize, name: &Name, nulls: Option<&NullBuffer>, slots: &mut Slots) {
        if let Some(present) = slots.by_eight(first, name, nulls) {
            // SAFETY: slots go by eight only where the processor has the instructions.
            let done = unsafe { self.fill_by_eight((first, present), name, slots) };
            if done > 0 {
                return slots.fill_from(done, present, first, name, &Whole(self));
            }
        }
        slots.fill(first, name, nulls, &Whole(self));
    }

    fn append(&self, row: usize, out: &mut Vec<u8>) {
        let mut cell = [0; MOST];
        let length = self.put(row, &mut cell[..C::ROOM]);
        out.extend_from_slice(&cell[..length]);
    }
}

/// Integers that fit an i64.
pub struct Ints<T: ArrowNativeType>(pub ScalarBuffer<T>);

impl<T: ArrowNativeType + Into<i64>> Cell for Ints<T> {
    const ROOM: usize = HEAD_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        put_int(self.0[row].into(), out)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_integers(self, rows, name, slots) }
    }
}

/// Unsigned 64-bit integers.
pub struct Unsigned(pub ScalarBuffer<u64>);

impl Cell for Unsigned {
    const ROOM: usize = HEAD_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        put_uint(self.0[row], out)
    }
}

/// Floats of any width; widening to double keeps every value.
pub struct Floats<T: ArrowNativeType>(pub ScalarBuffer<T>);

impl<T: ArrowNativeType + Into<f64>> Cell for Floats<T> {
    const ROOM: usize = FLOAT_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        put_float(self.0[row].into(), out)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_floats(self, rows, name, slots) }
    }
}

pub struct Booleans(pub BooleanBuffer);

impl Cell for Booleans {
    const ROOM: usize = 1;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        out[0] = if self.0.value(row) { TRUE } else { FALSE };
        1
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_booleans(self, rows, name, slots) }
    }
}

/// The extension `arrow.bool8`: any byte but 0 is true.
pub struct ByteBooleans(pub ScalarBuffer<i8>);

impl Cell for ByteBooleans {
    const ROOM: usize = 1;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        out[0] = if self.0[row] == 0 { FALSE } else { TRUE };
        1
    }
}

/// Decimals: value = integer × 10^-scale.
pub struct Decimals<T: ArrowNativeType> {
    pub values: ScalarBuffer<T>,
    pub scale: i8,
}

impl<T: ArrowNativeType + Into<i64>> Cell for Decimals<T> {
    const ROOM: usize = DECIMAL_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        let value: i64 = self.values[row].into();
        put_small_decimal(value < 0, value.unsigned_abs(), i32::from(self.scale), out)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        if !(1..=24).contains(&self.scale) {
            return 0;
        }
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_decimals(self, rows, name, slots) }
    }
}

/// Decimals of 128 bits.
pub struct WideDecimals(pub Decimals<i128>);

impl Cell for WideDecimals {
    const ROOM: usize = DECIMAL_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        let value = self.0.values[row];
        let magnitude = value.unsigned_abs();
        if let Ok(small) = u64::try_from(magnitude) {
            return put_small_decimal(value < 0, small, i32::from(self.0.scale), out);
        }
        let limbs = [magnitude as u64, (magnitude >> 64) as u64, 0, 0];
        put_decimal(value < 0, limbs, i32::from(self.0.scale), out)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        if !(1..=24).contains(&self.0.scale) {
            return 0;
        }
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_wide_decimals(self, rows, name, slots) }
    }
}

/// Decimals of 256 bits.
pub struct WidestDecimals(pub Decimals<i256>);

impl Cell for WidestDecimals {
    const ROOM: usize = DECIMAL_ROOM;

    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        let value = self.0.values[row];
        // The magnitude of the least value wraps to itself, and its bits are then the right ones.
        let bytes = value.wrapping_abs().to_le_bytes();
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*chunk);
        }
        put_decimal(value.is_negative(), limbs, i32::from(self.0.scale), out)
    }
}

/// Days since 1970-01-01.
pub struct Days(pub ScalarBuffer<i32>);

impl Cell for Days {
    const ROOM: usize = 2 + HEAD_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        out[..2].copy_from_slice(&DATE_TAG);
        2 + put_int(i64::from(self.0[row]), &mut out[2..])
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_days(self, rows, name, slots) }
    }
}

/// Dates in milliseconds since 1970-01-01.
pub struct LongDays(pub ScalarBuffer<i64>);

impl Cell for LongDays {
    const ROOM: usize = 2 + HEAD_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        out[..2].copy_from_slice(&DATE_TAG);
        2 + put_int(self.0[row].div_euclid(86_400_000), &mut out[2..])
    }
}

/// Moments, times of day and durations in units of 1/`PER_SECOND` s.
pub struct Clock<T: ArrowNativeType, const PER_SECOND: i64> {
    pub values: ScalarBuffer<T>,
    pub tag: [u8; 3],
}

impl<T: ArrowNativeType + Into<i64>, const PER_SECOND: i64> Cell for Clock<T, PER_SECOND> {
    const ROOM: usize = MOMENT_ROOM;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        let value: i64 = self.values[row].into();
        let seconds = value.div_euclid(PER_SECOND);
        let fraction = value.rem_euclid(PER_SECOND) * (1_000_000_000 / PER_SECOND);
        put_moment(self.tag, seconds, fraction as u32, out)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_by_eight(&self, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
        if PER_SECOND == 1 || self.tag != TIME_TAG {
            return 0;
        }
        // SAFETY: as the caller says.
        unsafe { cell_wide::fill_moments(self, rows, name, slots) }
    }
}

/// Intervals of months, days and nanoseconds that don't add up.
pub struct Intervals(pub ScalarBuffer<IntervalMonthDayNano>);

impl Cell for Intervals {
    const ROOM: usize = 3 + 1 + 3 * HEAD_ROOM;

    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        let value = self.0[row];
        out[..3].copy_from_slice(&DURATION_TAG);
        out[3] = ARRAY | 3;
        let mut end = 4;
        for part in [i64::from(value.months), i64::from(value.days), value.nanoseconds] {
            end += put_int(part, &mut out[end..]);
        }
        end
    }
}

/// The extension `arrow.uuid`: 16 bytes, as lower-case text in groups of 8-4-4-4-12 digits.
pub struct Uuids(pub arrow_buffer::Buffer);

impl Cell for Uuids {
    const ROOM: usize = 2 + 36;

    #[inline(always)]
    fn put(&self, row: usize, out: &mut [u8]) -> usize {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out[0] = TEXT | 24;
        out[1] = 36;
        let mut end = 2;
        for (i, byte) in self.0[row * 16..row * 16 + 16].iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                out[end] = b'-';
                end += 1;
            }
            out[end] = DIGITS[usize::from(byte >> 4)];
            out[end + 1] = DIGITS[usize::from(byte & 15)];
            end += 2;
        }
        end
    }
}
