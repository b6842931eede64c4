//! Views of texts or bytes written side by side.
//!
//! A decoder that gives views copies nothing; each value is then copied once, as one short block,
//! where a decoder that writes side by side would make a call for each and move all of them as its
//! buffer grows.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{BinaryViewType, ByteViewType, StringViewType};
use arrow_array::{
    Array, ArrayRef, GenericBinaryArray, GenericByteViewArray, GenericStringArray, OffsetSizeTrait,
};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::DataType;
use bytes::Bytes;

use crate::slots::SHORT;
use crate::spare::Recycled;

/// The type of views that an array of `kind` can be made from; None if it isn't one of texts or bytes.
pub fn views_of(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 => Some(DataType::Utf8View),
        DataType::Binary | DataType::LargeBinary => Some(DataType::BinaryView),
        _ => None,
    }
}

/// Bring views to `kind`; any other array stays what it is. `Err` says what is wrong with the values.
pub fn side_by_side(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, String> {
    fn texts<O: OffsetSizeTrait>(array: &ArrayRef) -> Result<ArrayRef, String> {
        let (offsets, values) = copied::<O, StringViewType>(array.as_byte_view())?;
        // SAFETY: each value is one of an array of texts, hence valid UTF-8, or empty; the offsets,
        // made of their lengths, lead from one to the next.
        let texts =
            unsafe { GenericStringArray::<O>::new_unchecked(offsets, values, array.nulls().cloned()) };
        Ok(Arc::new(texts))
    }
    fn bytes<O: OffsetSizeTrait>(array: &ArrayRef) -> Result<ArrayRef, String> {
        let (offsets, values) = copied::<O, BinaryViewType>(array.as_byte_view())?;
        let bytes = GenericBinaryArray::<O>::try_new(offsets, values, array.nulls().cloned());
        Ok(Arc::new(bytes.map_err(|error| error.to_string())?))
    }
    match (array.data_type(), kind) {
        (DataType::Utf8View, DataType::Utf8) => texts::<i32>(array),
        (DataType::Utf8View, DataType::LargeUtf8) => texts::<i64>(array),
        (DataType::BinaryView, DataType::Binary) => bytes::<i32>(array),
        (DataType::BinaryView, DataType::LargeBinary) => bytes::<i64>(array),
        _ => Ok(Arc::clone(array)),
    }
}

/// Views of this length or less hold their value themselves.
const INLINE: usize = 12;

fn copied<O: OffsetSizeTrait, T: ByteViewType>(
    array: &GenericByteViewArray<T>,
) -> Result<(OffsetBuffer<O>, Buffer), String> {
    let views = array.views();
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let lengths = || views.iter().map(|view| *view as u32 as usize);
    let total = lengths().sum::<usize>();
    if O::from_usize(total).is_none() {
        return Err("the texts of a batch are too long".to_owned());
    }
    let offsets = match nulls {
        None => OffsetBuffer::<O>::from_lengths(lengths()),
        // What lies under a null is left over from another row.
        Some(nulls) => OffsetBuffer::from_lengths(
            lengths().zip(nulls).map(|(length, valid)| length * usize::from(valid)),
        ),
    };
    let end = offsets[views.len()].as_usize();
    let mut recycled = Recycled::of(end, SHORT);
    let room = recycled.room();
    let buffers = array.data_buffers();
    for (view, at) in views.iter().zip(offsets.windows(2)) {
        let (from, to) = (at[0].as_usize(), at[1].as_usize());
        if to - from <= INLINE {
            // Also what lies under a null: the next value is written over it.
            room[from..from + 16].copy_from_slice(&(view >> 32).to_le_bytes());
            continue;
        }
        let source = &buffers[(view >> 64) as u32 as usize];
        let start = (view >> 96) as u32 as usize;
        match source.get(start..start + SHORT) {
            Some(short) if to - from <= SHORT => room[from..from + SHORT].copy_from_slice(short),
            _ => room[from..to].copy_from_slice(&source[start..start + (to - from)]),
        }
    }
    Ok((offsets, Buffer::from(Bytes::from_owner(recycled))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BinaryViewArray, StringViewArray};

    /// Lengths about those that are inline, short and long, in pieces of two buffers.
    fn texts() -> Vec<Option<String>> {
        let of = |length: usize| "aé€𝄞".chars().cycle().take(length).collect::<String>();
        [0, 1, 3, 4, 5, 11, 12, 13, 20, 31, 32, 33, 40, 400, 12, 0]
            .into_iter()
            .enumerate()
            .map(|(row, length)| (row % 5 != 3).then(|| of(length)))
            .collect()
    }

    fn views_with_leftovers() -> StringViewArray {
        // As the decoder leaves them: a view under each null.
        let all: StringViewArray = texts().into_iter().map(|text| text.or(Some("x".repeat(30)))).collect();
        let nulls = texts().iter().map(Option::is_some).collect::<Vec<_>>();
        StringViewArray::new(all.views().clone(), all.data_buffers().clone(), Some(nulls.into()))
    }

    #[test]
    fn texts_and_bytes_stay_what_they_are() {
        let views: ArrayRef = Arc::new(views_with_leftovers());
        for kind in [DataType::Utf8, DataType::LargeUtf8] {
            assert_eq!(views_of(&kind), Some(DataType::Utf8View));
            let array = side_by_side(&views, &kind).expect("they fit");
            assert_eq!(array.data_type(), &kind);
            array.to_data().validate_full().expect("it is sound");
            let found: Vec<Option<String>> = match kind {
                DataType::Utf8 => {
                    array.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
                }
                _ => array.as_string::<i64>().iter().map(|text| text.map(str::to_owned)).collect(),
            };
            assert_eq!(found, texts());
            // No memory for what lies under nulls.
            let held = texts().iter().flatten().map(String::len).sum::<usize>();
            assert_eq!(array.to_data().buffers()[1].len(), held);
        }
        let bytes: Vec<Option<Vec<u8>>> =
            texts().into_iter().map(|text| text.map(String::into_bytes)).collect();
        let views: ArrayRef = Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryViewArray>());
        for kind in [DataType::Binary, DataType::LargeBinary] {
            let array = side_by_side(&views, &kind).expect("they fit");
            assert_eq!(array.data_type(), &kind);
            let found: Vec<Option<Vec<u8>>> = match kind {
                DataType::Binary => {
                    array.as_binary::<i32>().iter().map(|value| value.map(<[u8]>::to_vec)).collect()
                }
                _ => array.as_binary::<i64>().iter().map(|value| value.map(<[u8]>::to_vec)).collect(),
            };
            assert_eq!(found, bytes);
        }
    }

    #[test]
    fn slices_and_empty_arrays_are_fine() {
        let views = views_with_leftovers();
        for (first, rows) in [(0, 0), (3, 1), (7, 9), (15, 1)] {
            let part: ArrayRef = Arc::new(views.slice(first, rows));
            let array = side_by_side(&part, &DataType::Utf8).expect("it fits");
            let found: Vec<Option<String>> =
                array.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
            assert_eq!(found, texts()[first..first + rows]);
        }
    }
}
