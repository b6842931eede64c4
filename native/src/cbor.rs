//! Deterministic CBOR (RFC 8949, section 4.2.1) with the numeric reduction of the dCBOR profile:
//! the scalar encodings of the signature format.
//!
//! Every `put_*` writes to the front of `out` and gives the length; it may scribble on the rest
//! of the room that its constant states, so that most writes are of one fixed size.

pub const UNSIGNED: u8 = 0x00;
pub const NEGATIVE: u8 = 0x20;
pub const BYTES: u8 = 0x40;
pub const TEXT: u8 = 0x60;
pub const ARRAY: u8 = 0x80;
pub const MAP: u8 = 0xa0;

pub const NULL: u8 = 0xf6;
pub const FALSE: u8 = 0xf4;
pub const TRUE: u8 = 0xf5;

pub const HEAD_ROOM: usize = 9;
pub const SHORT_HEAD: usize = 2;
pub const FLOAT_ROOM: usize = 9;
/// Tag, array head, exponent, bignum tag, its head, and 32 bytes.
pub const DECIMAL_ROOM: usize = 2 + 9 + 3 + 32;
/// Tag, map head, key and seconds, key and nanoseconds.
pub const MOMENT_ROOM: usize = 3 + 1 + 1 + 9 + 1 + 9;

/// Tag 1001: a moment in time.
pub const TIME_TAG: [u8; 3] = [0xd9, 0x03, 0xe9];
/// Tag 1002: a duration.
pub const DURATION_TAG: [u8; 3] = [0xd9, 0x03, 0xea];
/// Tag 100: days since 1970-01-01.
pub const DATE_TAG: [u8; 2] = [0xd8, 0x64];

pub const NANOSECONDS_KEY: u8 = 0x28; // -9
/// The first byte of a positive number of four bytes.
pub const FOUR: u8 = UNSIGNED | 26;

/// The head of a data item: its major type and its number, in the shortest form.
#[inline(always)]
pub fn put_head(major: u8, n: u64, out: &mut [u8]) -> usize {
    // Without branches: sizes of real numbers are mixed, and a wrong guess costs more than this.
    // Log2 of the bytes after the first one, by comparisons: counting zeros is slow in the instructions
    // that all x86-64 processors have.
    let width = u8::from(n > 0xff) + u8::from(n > 0xffff) + u8::from(n > 0xffff_ffff);
    let extra = 1_usize << width;
    let small = n < 24;
    out[0] = major | if small { n as u8 } else { 24 + width };
    out[1..9].copy_from_slice(&(n << (64 - 8 * extra)).to_be_bytes());
    1 + if small { 0 } else { extra }
}

/// The same for a number below 256, in `SHORT_HEAD` bytes: few steps for the lengths of most texts.
#[inline(always)]
pub fn put_short_head(major: u8, n: u8, out: &mut [u8]) -> usize {
    let small = n < 24;
    let head = if small { [major | n, 0] } else { [major | 24, n] };
    out[..SHORT_HEAD].copy_from_slice(&head);
    if small { 1 } else { 2 }
}

#[inline(always)]
pub fn put_int(value: i64, out: &mut [u8]) -> usize {
    let sign = value >> 63;
    put_head(sign as u8 & NEGATIVE, (value ^ sign) as u64, out)
}

#[inline(always)]
pub fn put_uint(value: u64, out: &mut [u8]) -> usize {
    put_head(UNSIGNED, value, out)
}

const SIGN: u64 = 1 << 63;
/// Bits of a double's mantissa that a single lacks.
const FINER_THAN_SINGLE: u64 = (1 << 29) - 1;
/// 2^24 as the bits of a double.
const TWO_24: u64 = (1023 + 24) << 52;
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

/// A float of any width: an integer if it is whole and in [-2^63, 2^64), else the shortest form.
#[inline(always)]
pub fn put_float(value: f64, out: &mut [u8]) -> usize {
    let bits = value.to_bits();
    // Most fractions: too fine for a single. Below 2^24 the last 29 bits are all behind the point.
    if bits & FINER_THAN_SINGLE != 0 && bits & !SIGN < TWO_24 {
        return put_double(bits, out);
    }
    let whole = value as i64;
    // 2^63 itself saturates to 2^63 - 1, which rounds back to it.
    if whole as f64 == value && value < TWO_63 {
        return put_int(whole, out);
    }
    put_fraction(value, out)
}

#[inline]
fn put_fraction(value: f64, out: &mut [u8]) -> usize {
    if (TWO_63..TWO_64).contains(&value) {
        return put_uint(value as u64, out);
    }
    if value.is_nan() {
        out[..3].copy_from_slice(&[0xf9, 0x7e, 0x00]);
        return 3;
    }
    let single = value as f32;
    if f64::from(single) != value {
        return put_double(value.to_bits(), out);
    }
    if let Some(half) = to_half(single) {
        out[0] = 0xf9;
        out[1..3].copy_from_slice(&half.to_be_bytes());
        return 3;
    }
    out[0] = 0xfa;
    out[1..5].copy_from_slice(&single.to_bits().to_be_bytes());
    5
}

#[inline(always)]
fn put_double(bits: u64, out: &mut [u8]) -> usize {
    out[0] = 0xfb;
    out[1..9].copy_from_slice(&bits.to_be_bytes());
    9
}

/// The bits of the half-precision float of the same value, if there is one.
#[inline]
fn to_half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        128 if mantissa == 0 => Some(sign | 0x7c00),
        -14..=15 if mantissa & 0x1fff == 0 => {
            Some(sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16)
        }
        -24..=-15 => {
            let significand = mantissa | 0x80_0000;
            let shift = (-1 - exponent) as u32;
            (significand.trailing_zeros() >= shift).then(|| sign | (significand >> shift) as u16)
        }
        _ => None,
    }
}

/// A moment or a span as the map {1: seconds, -9: nanoseconds} under `tag`.
#[inline(always)]
pub fn put_moment(tag: [u8; 3], seconds: i64, nanoseconds: u32, out: &mut [u8]) -> usize {
    // Nearly all moments: both numbers take four bytes, or there are no nanoseconds.
    if let Ok(since @ 0x1_0000..) = u32::try_from(seconds)
        && (nanoseconds > 0xffff || nanoseconds == 0)
    {
        let [s, e, c, o] = since.to_be_bytes();
        let [n, a, m, l] = nanoseconds.to_be_bytes();
        let map = MAP | if nanoseconds == 0 { 1 } else { 2 };
        let [one, two, three] = tag;
        let key = NANOSECONDS_KEY;
        out[..16].copy_from_slice(&[one, two, three, map, 0x01, FOUR, s, e, c, o, key, FOUR, n, a, m, l]);
        return if nanoseconds == 0 { 10 } else { 16 };
    }
    out[..3].copy_from_slice(&tag);
    out[3] = MAP | if nanoseconds == 0 { 1 } else { 2 };
    out[4] = 0x01;
    let end = 5 + put_int(seconds, &mut out[5..14]);
    if nanoseconds == 0 {
        return end;
    }
    out[end] = NANOSECONDS_KEY;
    end + 1 + put_head(UNSIGNED, u64::from(nanoseconds), &mut out[end + 1..end + 10])
}

/// The magnitude of a decimal's mantissa, least significant limb first.
pub type Magnitude = [u64; 4];

/// A decimal: sign, magnitude and scale (value = ± magnitude × 10^-scale).
#[inline]
pub fn put_decimal(negative: bool, magnitude: Magnitude, scale: i32, out: &mut [u8]) -> usize {
    if magnitude[1..] == [0, 0, 0] {
        return put_small_decimal(negative, magnitude[0], scale, out);
    }
    put_large_decimal(negative, magnitude, scale, out)
}

/// The same for a magnitude of one limb.
#[inline(always)]
pub fn put_small_decimal(negative: bool, magnitude: u64, scale: i32, out: &mut [u8]) -> usize {
    if magnitude == 0 {
        out[0] = 0;
        return 1;
    }
    let mut rest = magnitude;
    let mut exponent = -scale;
    while rest.is_multiple_of(10) {
        rest /= 10;
        exponent += 1;
    }
    if let Some(length) = put_whole(negative, rest, exponent, out) {
        return length;
    }
    let start = put_fraction_head(exponent, out);
    let (major, n) = if negative { (NEGATIVE, rest - 1) } else { (UNSIGNED, rest) };
    start + put_head(major, n, &mut out[start..])
}

fn put_large_decimal(negative: bool, mut magnitude: Magnitude, scale: i32, out: &mut [u8]) -> usize {
    let mut exponent = -scale;
    loop {
        let (quotient, remainder) = divide_by_ten(magnitude);
        if remainder != 0 {
            break;
        }
        magnitude = quotient;
        exponent += 1;
    }
    if magnitude[1..] == [0, 0, 0]
        && let Some(length) = put_whole(negative, magnitude[0], exponent, out)
    {
        return length;
    }
    let start = put_fraction_head(exponent, out);
    start + put_mantissa(negative, magnitude, &mut out[start..])
}

/// The integer `± rest × 10^exponent`, if it is one in [-2^63, 2^64).
#[inline]
fn put_whole(negative: bool, rest: u64, exponent: i32, out: &mut [u8]) -> Option<usize> {
    let power = 10_u64.checked_pow(u32::try_from(exponent).ok()?)?;
    let magnitude = rest.checked_mul(power)?;
    if !negative {
        return Some(put_uint(magnitude, out));
    }
    (magnitude <= 1 << 63).then(|| put_head(NEGATIVE, magnitude - 1, out))
}

/// Tag 4 and the exponent of [exponent, mantissa].
#[inline]
fn put_fraction_head(exponent: i32, out: &mut [u8]) -> usize {
    out[0] = 0xc4;
    out[1] = 0x82;
    if (-24..0).contains(&exponent) {
        out[2] = NEGATIVE | (-1 - exponent) as u8;
        return 3;
    }
    2 + put_int(i64::from(exponent), &mut out[2..11])
}

/// An integer of any size: a CBOR integer within [-2^64, 2^64), else a bignum.
fn put_mantissa(negative: bool, mut magnitude: Magnitude, out: &mut [u8]) -> usize {
    if negative {
        // CBOR counts negative numbers from -1; a magnitude here is never 0.
        for limb in &mut magnitude {
            let (less, borrow) = limb.overflowing_sub(1);
            *limb = less;
            if !borrow {
                break;
            }
        }
    }
    if magnitude[1..] == [0, 0, 0] {
        return put_head(if negative { NEGATIVE } else { UNSIGNED }, magnitude[0], out);
    }
    let mut bytes = [0; 32];
    for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(magnitude.iter().rev()) {
        *chunk = limb.to_be_bytes();
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros..];
    out[0] = if negative { 0xc3 } else { 0xc2 };
    let start = 1 + put_head(BYTES, digits.len() as u64, &mut out[1..]);
    out[start..start + digits.len()].copy_from_slice(digits);
    start + digits.len()
}

fn divide_by_ten(magnitude: Magnitude) -> (Magnitude, u64) {
    let mut quotient = magnitude;
    let mut remainder = 0;
    for limb in quotient.iter_mut().rev() {
        let wide = u128::from(remainder) << 64 | u128::from(*limb);
        *limb = (wide / 10) as u64;
        remainder = (wide % 10) as u64;
    }
    (quotient, remainder)
}

/// A head appended to a growing buffer.
pub fn push_head(major: u8, n: u64, out: &mut Vec<u8>) {
    let mut head = [0; HEAD_ROOM];
    let length = put_head(major, n, &mut head);
    out.extend_from_slice(&head[..length]);
}

/// A text string appended to a growing buffer.
pub fn push_text(text: &str, out: &mut Vec<u8>) {
    push_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut [u8]) -> usize) -> String {
        let mut out = [0xee; DECIMAL_ROOM];
        let length = put(&mut out);
        out[..length].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 8949, appendix A.
    #[test]
    fn integers_take_the_shortest_form() {
        for (value, expected) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (25, "1819"),
            (100, "1864"),
            (255, "18ff"),
            (256, "190100"),
            (1000, "1903e8"),
            (65_535, "19ffff"),
            (65_536, "1a00010000"),
            (1_000_000, "1a000f4240"),
            (4_294_967_295, "1affffffff"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (i64::MAX, "1b7fffffffffffffff"),
            (-1, "20"),
            (-24, "37"),
            (-25, "3818"),
            (-100, "3863"),
            (-1000, "3903e7"),
            (i64::MIN, "3b7fffffffffffffff"),
        ] {
            assert_eq!(written(|out| put_int(value, out)), expected, "{value}");
        }
        assert_eq!(written(|out| put_uint(u64::MAX, out)), "1bffffffffffffffff");
    }

    #[test]
    fn short_heads_are_like_others() {
        for length in 0..=255 {
            let head = written(|out| put_head(TEXT, u64::from(length), out));
            assert_eq!(written(|out| put_short_head(TEXT, length, out)), head, "{length}");
        }
    }

    #[test]
    fn floats_reduce_to_integers_or_the_shortest_form() {
        for (value, expected) in [
            (0.0, "00"),
            (-0.0, "00"),
            (1.0, "01"),
            (-4.0, "23"),
            (1.5, "f93e00"),
            (65_504.0, "19ffe0"),
            (5.960_464_477_539_063e-8, "f90001"),
            (6.103_515_625e-5, "f90400"),
            (2.980_232_238_769_531_2e-8, "fa33000000"),
            (1.1, "fb3ff199999999999a"),
            (-4.1, "fbc010666666666666"),
            (3.402_823_466_385_288_6e38, "fa7f7fffff"),
            (1.0e300, "fb7e37e43c8800759c"),
            (f64::INFINITY, "f97c00"),
            (f64::NEG_INFINITY, "f9fc00"),
            (-f64::NAN, "f97e00"),
            (TWO_63, "1b8000000000000000"),
            (-TWO_63, "3b7fffffffffffffff"),
            (18_446_744_073_709_549_568.0, "1bfffffffffffff800"),
            (TWO_64, "fa5f800000"),
            (-9_223_372_036_854_777_856.0, "fbc3e0000000000001"),
            (f64::from_bits(1), "fb0000000000000001"),
            // About 2^24, the last 29 bits of the mantissa in use or not.
            (16_777_215.999_999_998, "fb416fffffffffffff"),
            (16_777_215.5, "fb416ffffff0000000"),
            (16_777_217.0, "1a01000001"),
            (-16_777_217.5, "fbc170000018000000"),
            (4_503_599_627_370_497.0, "1b0010000000000001"),
            (f64::from_bits(0x7ff0_0000_0000_0001), "f97e00"),
            (f64::from_bits(0xfff8_0000_0000_0001), "f97e00"),
        ] {
            assert_eq!(written(|out| put_float(value, out)), expected, "{value}");
        }
    }

    #[test]
    fn decimals_lose_their_trailing_zeros() {
        let small = |negative, magnitude, scale| {
            let one = written(|out| put_small_decimal(negative, magnitude, scale, out));
            let any = written(|out| put_decimal(negative, [magnitude, 0, 0, 0], scale, out));
            assert_eq!(one, any);
            one
        };
        assert_eq!(small(false, 0, 7), "00");
        assert_eq!(small(false, 100, 2), "01");
        assert_eq!(small(false, 27_315, 2), "c48221196ab3");
        assert_eq!(small(true, 150, 2), "c482202e");
        assert_eq!(small(false, 12, -2), "1904b0");
        assert_eq!(small(true, 1 << 63, 0), "3b7fffffffffffffff");
        assert_eq!(small(true, (1 << 63) + 1, 0), "c482003b8000000000000000");
        assert_eq!(small(false, 1, -30), "c482181e01");
        assert_eq!(small(false, 1, 24), "c4823701");
        assert_eq!(small(false, 1, 25), "c482381801");
        let two_64 = [0, 1, 0, 0];
        assert_eq!(written(|out| put_decimal(true, two_64, 0, out)), "c482003bffffffffffffffff");
        assert_eq!(written(|out| put_decimal(false, two_64, 0, out)), "c48200c249010000000000000000");
        assert_eq!(written(|out| put_decimal(true, [1, 1, 0, 0], 0, out)), "c48200c349010000000000000000");
        assert_eq!(written(|out| put_decimal(false, [u64::MAX, 0, 0, 0], 0, out)), "1bffffffffffffffff");
    }

    #[test]
    fn moments_leave_zero_nanoseconds_out() {
        assert_eq!(written(|out| put_moment(TIME_TAG, 1, 0, out)), "d903e9a10101");
        for (seconds, nanoseconds, expected) in [
            (65_535, 0, "d903e9a10119ffff"),
            (65_536, 0, "d903e9a1011a00010000"),
            (4_294_967_295, 0, "d903e9a1011affffffff"),
            (4_294_967_296, 0, "d903e9a1011b0000000100000000"),
            (65_536, 65_535, "d903e9a2011a000100002819ffff"),
            (65_535, 65_536, "d903e9a20119ffff281a00010000"),
            (65_536, 65_536, "d903e9a2011a00010000281a00010000"),
            (1_700_000_000, 999_999_999, "d903e9a2011a6553f100281a3b9ac9ff"),
            (-65_537, 65_536, "d903e9a2013a00010000281a00010000"),
        ] {
            assert_eq!(written(|out| put_moment(TIME_TAG, seconds, nanoseconds, out)), expected);
        }
        assert_eq!(written(|out| put_moment(DURATION_TAG, -1, 999_999_999, out)), "d903eaa20120281a3b9ac9ff");
    }
}
