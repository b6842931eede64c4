//! Encodings of eight numbers at a time, one in each 64-bit lane of AVX-512 registers.
//!
//! They write what the cells of the same names write, or say which of the eight are left to those.

use core::arch::x86_64::{
    __m512i, __mmask8, _CMP_EQ_OQ, _MM_FROUND_TO_NEAREST_INT, _mm256_castps_si256, _mm256_cmp_ps_mask,
    _mm256_cvtph_ps, _mm256_cvtps_ph, _mm512_add_epi64, _mm512_andnot_si512, _mm512_castsi512_pd,
    _mm512_cmp_pd_mask, _mm512_cmpeq_epi64_mask, _mm512_cmpge_epu64_mask, _mm512_cmpgt_epu64_mask,
    _mm512_cmple_epu64_mask, _mm512_cmplt_epi64_mask, _mm512_cmplt_epu64_mask, _mm512_cmpneq_epi64_mask,
    _mm512_cvtepi64_pd, _mm512_cvtepu16_epi64, _mm512_cvtepu32_epi64, _mm512_cvtpd_ps, _mm512_cvtps_pd,
    _mm512_cvttpd_epi64, _mm512_loadu_si512, _mm512_mask_add_epi64, _mm512_mask_mov_epi64,
    _mm512_mask_sub_epi64, _mm512_maskz_mov_epi64, _mm512_mul_epu32, _mm512_mul_pd, _mm512_mullo_epi64,
    _mm512_or_si512, _mm512_permutex2var_epi64, _mm512_permutexvar_epi64, _mm512_ror_epi64, _mm512_set_epi64,
    _mm512_set1_epi64, _mm512_set1_pd, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi64,
    _mm512_sllv_epi64, _mm512_srai_epi64, _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_sub_epi64,
    _mm512_ternarylogic_epi64, _mm512_test_epi64_mask, _mm512_xor_si512,
};

use arrow_buffer::ArrowNativeType;

use crate::cbor::{DATE_TAG, FALSE, FOUR, MAP, NANOSECONDS_KEY, TRUE};
use crate::cell::{Booleans, Cell, Clock, Days, Decimals, Floats, Ints, Whole, WideDecimals};
use crate::slots::{Name, Put, Rows, Slots};
use crate::slots_wide::fill;

/// Eight encoded values of at most 16 bytes each.
#[derive(Clone, Copy)]
pub struct Eight {
    /// The first eight bytes of each, and the others, the first one lowest. What follows the value is any.
    pub low: __m512i,
    pub high: __m512i,
    pub lengths: __m512i,
    /// Those that are to be encoded one by one instead.
    pub odd: __mmask8,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn all(value: u64) -> __m512i {
    _mm512_set1_epi64(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load(values: &[u64; 8]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn swap_bytes(values: __m512i) -> __m512i {
    let (high, low) = (0x0809_0A0B_0C0D_0E0F, 0x0001_0203_0405_0607);
    _mm512_shuffle_epi8(values, _mm512_set_epi64(high, low, high, low, high, low, high, low))
}

/// One of five for each of `kinds`, which are 0 to 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn choose(kinds: __m512i, [a, b, c, d, e]: [i64; 5]) -> __m512i {
    _mm512_permutexvar_epi64(kinds, _mm512_set_epi64(0, 0, 0, e, d, c, b, a))
}

/// The heads of the integers `n` where `signs` is 0, and of -1 - `n` where it is -1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn heads(signs: __m512i, n: __m512i) -> Eight {
    let small = _mm512_cmplt_epu64_mask(n, all(24));
    // By the bytes after the first one: none, 1, 2, 4, 8.
    let mut kinds = _mm512_maskz_mov_epi64(!small, all(1));
    kinds = _mm512_mask_mov_epi64(kinds, _mm512_cmpgt_epu64_mask(n, all(0xff)), all(2));
    kinds = _mm512_mask_mov_epi64(kinds, _mm512_cmpgt_epu64_mask(n, all(0xffff)), all(3));
    kinds = _mm512_mask_mov_epi64(kinds, _mm512_cmpgt_epu64_mask(n, all(0xffff_ffff)), all(4));
    let first = _mm512_mask_mov_epi64(choose(kinds, [0, 24, 25, 26, 27]), small, n);
    // first | (signs & 0x20)
    let first = _mm512_ternarylogic_epi64(first, signs, all(0x20), 0xF8);
    let others = swap_bytes(_mm512_sllv_epi64(n, choose(kinds, [64, 56, 48, 32, 0])));
    Eight {
        low: _mm512_or_si512(first, _mm512_slli_epi64(others, 8)),
        high: _mm512_srli_epi64(others, 56),
        lengths: choose(kinds, [1, 2, 3, 5, 9]),
        odd: 0,
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn integers(values: __m512i) -> Eight {
    let signs = _mm512_srai_epi64(values, 63);
    heads(signs, _mm512_xor_si512(values, signs))
}

/// Integers of at most 32 bits, as days since 1970-01-01.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn days(values: __m512i) -> Eight {
    let Eight { low, lengths, .. } = integers(values);
    Eight {
        low: _mm512_or_si512(_mm512_slli_epi64(low, 16), all(u16::from_le_bytes(DATE_TAG).into())),
        high: _mm512_setzero_si512(),
        lengths: _mm512_add_epi64(lengths, all(2)),
        odd: 0,
    }
}

/// Booleans, the first one the lowest bit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn booleans(values: u8) -> Eight {
    Eight {
        low: _mm512_mask_mov_epi64(all(FALSE.into()), values, all(TRUE.into())),
        high: _mm512_setzero_si512(),
        lengths: all(1),
        odd: 0,
    }
}

/// Doubles, as their bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn floats(bits: __m512i) -> Eight {
    let others = swap_bytes(bits);
    let doubles = Eight {
        low: _mm512_or_si512(_mm512_slli_epi64(others, 8), all(0xfb)),
        high: _mm512_srli_epi64(others, 56),
        lengths: all(9),
        odd: 0,
    };
    // As in `put_float`: fractions that are too fine for a single.
    let magnitude = _mm512_andnot_si512(all(1 << 63), bits);
    let fine = _mm512_test_epi64_mask(bits, all((1 << 29) - 1));
    let fine = fine & _mm512_cmplt_epu64_mask(magnitude, all((1023 + 24) << 52));
    if fine == 0xff { doubles } else { reduced(bits, magnitude, doubles, fine) }
}

/// Doubles that may be whole, singles or halves; those that are `fine` surely are not.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn reduced(bits: __m512i, magnitude: __m512i, doubles: Eight, fine: __mmask8) -> Eight {
    let values = _mm512_castsi512_pd(bits);
    let Eight { mut low, mut high, mut lengths, .. } = doubles;
    let singles = _mm512_cvtpd_ps(values);
    // Where a program lets the processor take subnormal numbers for zero, comparing alone would do so, too.
    let fits = !fine & _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(_mm512_cvtps_pd(singles), values);
    let four = swap_bytes(_mm512_cvtepu32_epi64(_mm256_castps_si256(singles)));
    let encoded = _mm512_or_si512(_mm512_srli_epi64(four, 24), all(0xfa));
    low = _mm512_mask_mov_epi64(low, fits, encoded);
    lengths = _mm512_mask_mov_epi64(lengths, fits, all(5));
    let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(singles);
    let fits = fits & _mm256_cmp_ps_mask::<_CMP_EQ_OQ>(_mm256_cvtph_ps(halves), singles);
    let two = swap_bytes(_mm512_cvtepu16_epi64(halves));
    let encoded = _mm512_or_si512(_mm512_srli_epi64(two, 40), all(0xf9));
    low = _mm512_mask_mov_epi64(low, fits, encoded);
    lengths = _mm512_mask_mov_epi64(lengths, fits, all(3));
    let integer = _mm512_cvttpd_epi64(values);
    let fits = !fine & _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(_mm512_cvtepi64_pd(integer), values);
    let encoded = integers(integer);
    low = _mm512_mask_mov_epi64(low, fits, encoded.low);
    high = _mm512_mask_mov_epi64(high, fits, encoded.high);
    lengths = _mm512_mask_mov_epi64(lengths, fits, encoded.lengths);
    // From 2^-14 to below 2^63 a half is a normal number, and an integer fits; zero is whole. All else is rare.
    let (least, end) = ((1023 - 14) << 52, (1023 + 63) << 52);
    let common = _mm512_cmplt_epu64_mask(_mm512_sub_epi64(magnitude, all(least)), all(end - least));
    let zero = _mm512_cmpeq_epi64_mask(magnitude, _mm512_setzero_si512());
    Eight { low, high, lengths, odd: !(common | zero | fine) }
}

/// The inverse of 5 modulo 2^64.
const FIFTH: u64 = 0xCCCC_CCCC_CCCC_CCCD;

/// Decimals whose integers fit 64 bits: value = integer × 10^-scale, with a scale of 1 to 24.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn decimals(values: __m512i, scale: u32) -> Eight {
    let signs = _mm512_srai_epi64(values, 63);
    let mut rest = _mm512_sub_epi64(_mm512_xor_si512(values, signs), signs);
    let mut digits = all(scale.into());
    let mut zeros = 0xff;
    for step in 0..scale {
        // A multiple of 10 becomes its tenth, any other number one that is too large for that
        // (H. S. Warren, Hacker's Delight, 10-17).
        let tenth = _mm512_ror_epi64(_mm512_mullo_epi64(rest, all(FIFTH)), 1);
        zeros &= _mm512_cmple_epu64_mask(tenth, all(u64::MAX / 10));
        rest = _mm512_mask_mov_epi64(rest, zeros, tenth);
        digits = _mm512_mask_sub_epi64(digits, zeros, digits, all(1));
        // Not asked at first: it can't be foreseen.
        if step >= 2 && zeros == 0 {
            break;
        }
    }
    // CBOR counts negative numbers from -1.
    let Eight { low, high, lengths, .. } = heads(signs, _mm512_add_epi64(rest, signs));
    let fractions = _mm512_test_epi64_mask(digits, digits);
    // Tag 4, an array of two, the exponent: -digits, hence 0x20 + digits - 1.
    let prefix = _mm512_add_epi64(_mm512_slli_epi64(digits, 16), all(0x1f_82c4));
    let shift = _mm512_maskz_mov_epi64(fractions, all(24));
    let shifted = _mm512_or_si512(
        _mm512_srlv_epi64(low, _mm512_sub_epi64(all(64), shift)),
        _mm512_sllv_epi64(high, shift),
    );
    Eight {
        low: _mm512_or_si512(_mm512_maskz_mov_epi64(fractions, prefix), _mm512_sllv_epi64(low, shift)),
        high: shifted,
        lengths: _mm512_mask_add_epi64(lengths, fractions, lengths, all(3)),
        odd: 0,
    }
}

/// The lower halves of numbers of 128 bits, and which of them are not all of the number.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrowed(values: &[i128; 8]) -> (__m512i, __mmask8) {
    let half = |four: &[i128]| {
        let four: &[i128; 4] = four.try_into().expect("its length");
        // SAFETY: four numbers are 64 readable bytes, and this load asks for no alignment.
        unsafe { _mm512_loadu_si512(four.as_ptr().cast()) }
    };
    let (first, last) = (half(&values[..4]), half(&values[4..]));
    let low = _mm512_permutex2var_epi64(first, _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), last);
    let high = _mm512_permutex2var_epi64(first, _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1), last);
    (low, _mm512_cmpneq_epi64_mask(high, _mm512_srai_epi64(low, 63)))
}

/// Moments in units of 1/`per_second` s; odd ones are those that `put_moment` does not write at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn moments(values: __m512i, per_second: u32, tag: [u8; 3]) -> Eight {
    let whole = all(per_second.into());
    // At most one off where the seconds fit 32 bits; all others are odd.
    let estimate = _mm512_mul_pd(_mm512_cvtepi64_pd(values), _mm512_set1_pd(1.0 / f64::from(per_second)));
    let mut seconds = _mm512_cvttpd_epi64(estimate);
    let mut fraction = _mm512_sub_epi64(values, _mm512_mullo_epi64(seconds, whole));
    let less = _mm512_cmplt_epi64_mask(fraction, _mm512_setzero_si512());
    seconds = _mm512_mask_sub_epi64(seconds, less, seconds, all(1));
    fraction = _mm512_mask_add_epi64(fraction, less, fraction, whole);
    let more = _mm512_cmpge_epu64_mask(fraction, whole);
    seconds = _mm512_mask_add_epi64(seconds, more, seconds, all(1));
    fraction = _mm512_mask_sub_epi64(fraction, more, fraction, whole);
    let nanoseconds = _mm512_mul_epu32(fraction, all((1_000_000_000 / per_second).into()));
    let none = _mm512_cmpeq_epi64_mask(nanoseconds, _mm512_setzero_si512());
    let short = _mm512_cmple_epu64_mask(nanoseconds, all(0xffff));
    let common =
        _mm512_cmplt_epu64_mask(_mm512_sub_epi64(seconds, all(0x1_0000)), all(0x1_0000_0000 - 0x1_0000));
    let [one, two, three] = tag;
    let start = |members| all(u64::from_le_bytes([one, two, three, MAP | members, 0x01, FOUR, 0, 0]));
    let four = _mm512_srli_epi64(swap_bytes(seconds), 32);
    let key = all(u64::from_le_bytes([0, 0, NANOSECONDS_KEY, FOUR, 0, 0, 0, 0]));
    let key = _mm512_or_si512(_mm512_srli_epi64(four, 16), key);
    Eight {
        low: _mm512_or_si512(_mm512_mask_mov_epi64(start(2), none, start(1)), _mm512_slli_epi64(four, 48)),
        high: _mm512_or_si512(key, swap_bytes(nanoseconds)),
        lengths: _mm512_mask_mov_epi64(all(16), none, all(10)),
        odd: !common | short & !none,
    }
}

/// What writes a single value.
fn one_by_one<C: Cell>(cells: &C) -> impl Fn(usize, &mut [u8], usize) -> usize {
    |row, bytes, at| Whole(cells).put(row, bytes, at)
}

/// Eight values from `row` on, widened to 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widened<T: ArrowNativeType + Into<i64>>(values: &[T], row: usize) -> __m512i {
    let values: &[T; 8] = values[row..row + 8].try_into().expect("its length");
    load(&values.map(|value| value.into().cast_unsigned()))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_integers<T: ArrowNativeType + Into<i64>>(
    cells: &Ints<T>,
    rows: Rows,
    name: &Name,
    slots: &mut Slots,
) -> usize {
    fill(rows, name, slots, |row| integers(widened(&cells.0, row)), one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_days(cells: &Days, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
    fill(rows, name, slots, |row| days(widened(&cells.0, row)), one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_floats<T: ArrowNativeType + Into<f64>>(
    cells: &Floats<T>,
    rows: Rows,
    name: &Name,
    slots: &mut Slots,
) -> usize {
    let eight = |row: usize| {
        let values: &[T; 8] = cells.0[row..row + 8].try_into().expect("its length");
        floats(load(&values.map(|value| value.into().to_bits())))
    };
    fill(rows, name, slots, eight, one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_booleans(cells: &Booleans, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
    let eight = |row: usize| {
        let at = cells.0.offset() + row;
        let bytes = &cells.0.values()[at / 8..(at + 8).div_ceil(8)];
        let last = u16::from(bytes[bytes.len() - 1]);
        booleans(((last << 8 | u16::from(bytes[0])) >> (at % 8)) as u8)
    };
    fill(rows, name, slots, eight, one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_decimals<T: ArrowNativeType + Into<i64>>(
    cells: &Decimals<T>,
    rows: Rows,
    name: &Name,
    slots: &mut Slots,
) -> usize {
    let eight = |row: usize| decimals(widened(&cells.values, row), cells.scale.unsigned_abs().into());
    fill(rows, name, slots, eight, one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_wide_decimals(cells: &WideDecimals, rows: Rows, name: &Name, slots: &mut Slots) -> usize {
    let eight = |row: usize| {
        let values: &[i128; 8] = cells.0.values[row..row + 8].try_into().expect("its length");
        let (values, odd) = narrowed(values);
        Eight { odd, ..decimals(values, cells.0.scale.unsigned_abs().into()) }
    };
    fill(rows, name, slots, eight, one_by_one(cells))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_moments<T: ArrowNativeType + Into<i64>, const PER_SECOND: i64>(
    cells: &Clock<T, PER_SECOND>,
    rows: Rows,
    name: &Name,
    slots: &mut Slots,
) -> usize {
    let eight = |row: usize| moments(widened(&cells.values, row), PER_SECOND as u32, cells.tag);
    fill(rows, name, slots, eight, one_by_one(cells))
}

#[cfg(test)]
mod tests;
