//! Eight values at a time give what one by one gives.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal64Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampSecondType, UInt8Type, UInt32Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, LargeStringArray, PrimitiveArray,
    StringArray, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

use super::*;
use crate::exchange::Shape;
use crate::rows::{Field, Plan, Signing, Worker};
use crate::sha::{Digest, Hasher, Keying};
use crate::tree::build;

struct Random(u64);

impl Random {
    /// Any bits (xorshift: G. Marsaglia, 2003).
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// A number of any size, often next to one where its encoding changes.
    fn number(&mut self) -> i64 {
        const EDGES: [u64; 12] =
            [0, 24, 1 << 8, 1 << 16, 1 << 32, 1 << 63, 1 << 53, 1 << 24, 100, 1000, 65_504, 86_400];
        let any = self.bits() >> self.below(64);
        let near = EDGES[self.below(12)].wrapping_add(self.below(5) as u64).wrapping_sub(2);
        let number = if self.below(2) == 0 { any } else { near }.cast_signed();
        if self.below(2) == 0 { number } else { number.wrapping_neg() }
    }

    /// A fraction of any size, often one that a shorter form holds.
    fn float(&mut self) -> f64 {
        const EDGES: [f64; 14] = [
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            1e-45,
            5.9e-8,
            65_504.0,
            65_520.0,
            3.4e38,
            9_223_372_036_854_775_808.0,
            18_446_744_073_709_551_616.0,
            1e300,
        ];
        let float = match self.below(6) {
            0 => f64::from_bits(self.bits()),
            1 => f64::from(f32::from_bits(self.bits() as u32)),
            2 => self.number() as f64,
            3 => EDGES[self.below(14)],
            4 => (self.number() >> 40) as f64 / 1024.0,
            _ => (self.number() >> 20) as f64 / 100.0,
        };
        if self.below(2) == 0 { float } else { -float }
    }

    fn text(&mut self) -> String {
        // As long as a copy may be at most, or longer, only now and then.
        let most = if self.below(300) == 0 { 60 } else { 32 };
        "aé€𝄞".chars().cycle().skip(self.below(4)).take(self.below(most) / 2).collect()
    }
}

const ROWS: usize = 2_000;

fn numbers<T: ArrowPrimitiveType>(random: &mut Random, convert: impl Fn(i64) -> T::Native) -> ArrayRef {
    Arc::new((0..ROWS).map(|_| Some(convert(random.number()))).collect::<PrimitiveArray<T>>())
}

fn signed(arrays: &[ArrayRef], name: &[u8], rows: Range<usize>, wide: bool) -> Vec<Digest> {
    let field = |array| Field {
        name: Name::new(name),
        node: build(array, &Shape::default(), 0).expect("its type has signatures"),
    };
    let fields: Vec<Field> = arrays.iter().map(field).collect();
    let plans = [Plan { fields: (0..fields.len()).collect() }];
    let hasher = Hasher::new(Keying::new(None));
    let mut out = vec![[0; 32]; rows.len()];
    let signing = Signing { fields: &fields, plans: &plans, hasher: &hasher, wide };
    assert!(signing.sign(rows, &mut [&mut out], &mut Worker::default()).is_empty());
    out
}

/// Eight values at a time give the same as one by one, wherever the rows begin and however long the name is.
fn agree(array: &ArrayRef) {
    agree_together(std::slice::from_ref(array));
}

fn agree_together(arrays: &[ArrayRef]) {
    let bytes: Vec<u8> = (0..40).map(|i| 0x61 + i).collect();
    for (length, rows) in [(1, 0..ROWS), (8, 3..ROWS), (14, 1..72), (15, 5..700), (16, 64..640), (33, 0..900)]
    {
        let name = &bytes[..length];
        let kind = arrays[0].data_type();
        let one_by_one = signed(arrays, name, rows.clone(), false);
        assert_eq!(signed(arrays, name, rows.clone(), true), one_by_one, "{kind}, {length}, {rows:?}");
        let part: Vec<ArrayRef> = arrays.iter().map(|array| array.slice(rows.start, rows.len())).collect();
        assert_eq!(signed(&part, name, 0..rows.len(), true), one_by_one, "{kind}, {length}, {rows:?}");
    }
}

#[test]
fn integers_of_any_width() {
    let random = &mut Random(30);
    agree(&numbers::<Int64Type>(random, |number| number));
    agree(&numbers::<Int32Type>(random, |number| number as i32));
    agree(&numbers::<Int16Type>(random, |number| number as i16));
    agree(&numbers::<Int8Type>(random, |number| number as i8));
    agree(&numbers::<UInt32Type>(random, |number| number as u32));
    agree(&numbers::<UInt8Type>(random, |number| number as u8));
}

#[test]
fn days_and_booleans() {
    let random = &mut Random(31);
    agree(&numbers::<Date32Type>(random, |number| number as i32));
    let booleans: BooleanArray = (0..ROWS).map(|_| Some(random.below(2) == 0)).collect();
    agree(&(Arc::new(booleans) as ArrayRef));
}

#[test]
fn floats_of_any_size() {
    let random = &mut Random(32);
    for _ in 0..4 {
        let doubles: Float64Array = (0..ROWS).map(|_| Some(random.float())).collect();
        agree(&(Arc::new(doubles) as ArrayRef));
        let singles: Float32Array = (0..ROWS).map(|_| Some(random.float() as f32)).collect();
        agree(&(Arc::new(singles) as ArrayRef));
    }
}

#[test]
fn decimals_of_any_scale() {
    let random = &mut Random(33);
    for scale in [-3, 0, 1, 2, 3, 4, 9, 18, 24, 25, 38] {
        let decimal = |random: &mut Random| {
            let zeros = 10_i64.pow(random.below(8) as u32);
            let number = i128::from(random.number() / zeros * zeros);
            if random.below(20) == 0 { number << 40 } else { number }
        };
        let wide: PrimitiveArray<Decimal128Type> = (0..ROWS).map(|_| Some(decimal(random))).collect();
        agree(&(Arc::new(wide.with_data_type(DataType::Decimal128(38, scale))) as ArrayRef));
        if scale <= 18 {
            let narrow: PrimitiveArray<Decimal64Type> =
                (0..ROWS).map(|_| Some(decimal(random) as i64)).collect();
            agree(&(Arc::new(narrow.with_data_type(DataType::Decimal64(18, scale))) as ArrayRef));
        }
    }
}

#[test]
fn moments_in_any_unit() {
    let random = &mut Random(34);
    // Mostly about the first and the last moment that are written at once, in each unit.
    let moment = |random: &mut Random, per_second: i64| {
        let seconds = [0, 0x1_0000, 1_700_000_000, 0x1_0000_0000][random.below(4)];
        match random.below(4) {
            0 => random.number(),
            1 => (seconds + random.below(3) as i64 - 1).wrapping_mul(per_second),
            _ => seconds.wrapping_mul(per_second).wrapping_add(random.number() % (2 * per_second)),
        }
    };
    agree(&numbers::<TimestampSecondType>(random, |number| number));
    let mut values = |per_second| (0..ROWS).map(|_| Some(moment(random, per_second))).collect::<Vec<_>>();
    let milliseconds: TimestampMillisecondArray = values(1_000).into();
    let microseconds: TimestampMicrosecondArray = values(1_000_000).into();
    let nanoseconds: TimestampNanosecondArray = values(1_000_000_000).into();
    let times: Time64MicrosecondArray = values(1_000_000).into();
    let arrays: [ArrayRef; 4] =
        [Arc::new(milliseconds), Arc::new(microseconds), Arc::new(nanoseconds), Arc::new(times)];
    arrays.iter().for_each(agree);
}

#[test]
fn texts_and_bytes_of_any_length() {
    let random = &mut Random(35);
    let texts: Vec<String> = (0..ROWS).map(|_| random.text()).collect();
    let bytes: BinaryArray = texts.iter().map(|text| Some(text.as_bytes())).collect();
    let large: LargeStringArray = texts.iter().map(Some).collect();
    let views: StringViewArray = texts.iter().map(Some).collect();
    let small: StringArray = texts.iter().map(Some).collect();
    let arrays: [ArrayRef; 4] = [Arc::new(bytes), Arc::new(large), Arc::new(views), Arc::new(small)];
    arrays.iter().for_each(agree);
}

#[test]
fn nulls_in_some_groups_few_or_many() {
    let random = &mut Random(36);
    for often in [2, 4, 30] {
        let mut null = |row: usize| !(row / 200).is_multiple_of(3) && random.below(often) == 0;
        let nulls: Vec<Vec<bool>> = (0..6).map(|_| (0..ROWS).map(&mut null).collect()).collect();
        let nullable = |array: ArrayRef, column: usize| {
            let valid = NullBuffer::from(nulls[column].iter().map(|null| !null).collect::<Vec<_>>());
            let data = array.to_data().into_builder().nulls(Some(valid)).build().expect("it is sound");
            arrow_array::make_array(data)
        };
        let texts: StringArray = (0..ROWS).map(|_| Some(random.text())).collect();
        let short: StringArray = (0..ROWS).map(|row| Some(&"abcdefghijk"[..row % 11])).collect();
        let floats: Float64Array = (0..ROWS).map(|_| Some(random.float())).collect();
        let booleans: BooleanArray = (0..ROWS).map(|_| Some(random.below(2) == 0)).collect();
        let arrays = [
            nullable(numbers::<Int64Type>(random, |number| number), 0),
            nullable(Arc::new(texts), 1),
            nullable(numbers::<Date32Type>(random, |number| number as i32), 2),
            nullable(Arc::new(floats), 3),
            nullable(Arc::new(booleans), 4),
            nullable(Arc::new(short), 5),
        ];
        arrays.iter().for_each(agree);
        agree_together(&arrays);
    }
}
