//! Eight encoded values at a time written into the slots of their rows.

use core::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm512_add_epi64, _mm512_cmpge_epu64_mask, _mm512_cmple_epu64_mask,
    _mm512_cmplt_epu64_mask, _mm512_loadu_si512, _mm512_mask_mov_epi64, _mm512_or_si512,
    _mm512_permutex2var_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_sll_epi64, _mm512_slli_epi64,
    _mm512_srl_epi64, _mm512_storeu_si512, _mm512_sub_epi64,
};

use crate::cell_wide::Eight;
use crate::slots::{Name, SHORT, Slots, Staged};

/// Where eight rows' values go, or come from.
pub type Places = [usize; 8];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn all(value: usize) -> __m512i {
    _mm512_set1_epi64((value as u64).cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load(places: &Places) -> __m512i {
    const { assert!(size_of::<usize>() == 8) };
    // SAFETY: the reference is to 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn store(places: &mut Places, values: __m512i) {
    // SAFETY: the reference is to 64 writable bytes, and this store asks for no alignment.
    unsafe { _mm512_storeu_si512(places.as_mut_ptr().cast(), values) }
}

/// The 16 bytes of each row, made of the low and the high eight of all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn stage(to: &mut [u128; 8], low: __m512i, high: __m512i) {
    let first = _mm512_permutex2var_epi64(low, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), high);
    let last = _mm512_permutex2var_epi64(low, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), high);
    // SAFETY: the reference is to 128 writable bytes, and these stores ask for no alignment.
    unsafe {
        _mm512_storeu_si512(to.as_mut_ptr().cast(), first);
        _mm512_storeu_si512(to[4..].as_mut_ptr().cast(), last);
    }
}

/// Whether `bytes` holds so many bytes from each of the places on.
fn check(bytes: &[u8], places: &[usize], count: usize) -> bool {
    let last = places.iter().fold(0, |last, place| last.max(*place));
    bytes.len() >= count && last <= bytes.len() - count
}

/// Write the name and the value of each row and give how many are written: rows behind the last eight are
/// left. `eight(row)` encodes the values of the rows `row..row + 8` of the batch, and `put(row, bytes, at)`
/// writes an odd one and gives where it ends.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill(
    first: usize,
    name: &Name,
    slots: &mut Slots,
    eight: impl Fn(usize) -> Eight,
    put: impl Fn(usize, &mut [u8], usize) -> usize,
) -> usize {
    let (chunks, length) = name.parts();
    let (bytes, cursors, Staged { values, places, .. }) = slots.staged();
    let (eights, _) = cursors.as_chunks_mut::<8>();
    let by_eight = eights.len() * 8;
    let mut odd_rows = 0_u64;
    for (i, cursors) in eights.iter_mut().enumerate() {
        let Eight { low, high, lengths, odd } = eight(first + i * 8);
        let starts = load(cursors);
        store(&mut places.0.as_chunks_mut::<8>().0[i], starts);
        store(cursors, _mm512_add_epi64(_mm512_add_epi64(starts, lengths), all(length)));
        stage(&mut values.0.as_chunks_mut::<8>().0[i], low, high);
        odd_rows |= u64::from(odd) << (i * 8);
    }
    let (values, places) = (&values.0[..by_eight], &places.0[..by_eight]);
    assert!(check(bytes, places, chunks.len() * 16 + 16), "slots have room for a name and a value");
    let out = bytes.as_mut_ptr();
    // Nearly all names are short: kept in a register.
    if let [chunk] = chunks {
        let chunk = u128::from_le_bytes(*chunk);
        for (at, value) in places.iter().zip(values) {
            // SAFETY: `check` found room for the chunk of the name and 16 bytes more, and a name is not
            // longer than its chunks.
            unsafe {
                out.add(*at).cast::<u128>().write_unaligned(chunk);
                out.add(*at + length).cast::<u128>().write_unaligned(*value);
            }
        }
    } else {
        for (at, value) in places.iter().zip(values) {
            let at = name.put(bytes, *at);
            bytes[at..at + 16].copy_from_slice(&value.to_le_bytes());
        }
    }
    while odd_rows != 0 {
        let row = odd_rows.trailing_zeros() as usize;
        odd_rows &= odd_rows - 1;
        cursors[row] = put(first + row, bytes, places[row] + length);
    }
    by_eight
}

/// Texts side by side in one buffer.
pub trait Texts {
    fn values(&self) -> &[u8];
    /// Where the text of a row of the batch begins.
    fn begin(&self, row: usize) -> usize;
    /// Where the texts of the batch's rows `row..row + 8` begin.
    fn begins(&self, row: usize) -> Places;
}

/// The same for texts, none of them if one is long or near the end of all. `major` is the type of their heads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_texts(first: usize, name: &Name, slots: &mut Slots, texts: &impl Texts, major: u8) -> usize {
    let all_bytes = texts.values();
    let (chunks, length) = name.parts();
    let (bytes, cursors, Staged { values, places, texts: behind }) = slots.staged();
    let (eights, _) = cursors.as_chunks_mut::<8>();
    let by_eight = eights.len() * 8;
    let Some(last) = all_bytes.len().checked_sub(SHORT) else { return 0 };
    let mut good = 0xff;
    for i in 0..eights.len() {
        let from = load(&texts.begins(first + i * 8));
        let lengths = _mm512_sub_epi64(load(&texts.begins(first + i * 8 + 1)), from);
        good &= _mm512_cmplt_epu64_mask(lengths, all(SHORT)) & _mm512_cmple_epu64_mask(from, all(last));
    }
    if good != 0xff {
        return 0;
    }
    // A name and the head behind it are one store where both fit 16 bytes.
    let within = if length <= 14 { length } else { 0 };
    let chunk = if within > 0 { u128::from_le_bytes(chunks[0]) } else { 0 };
    let names = (all(chunk as u64 as usize), all((chunk >> 64) as u64 as usize));
    let bits = within as i64 * 8;
    // Shifts by 64 bits or more, negative ones among them, give 0.
    let (left, right, over) =
        (_mm_cvtsi64_si128(bits), _mm_cvtsi64_si128(64 - bits), _mm_cvtsi64_si128(bits - 64));
    for (i, cursors) in eights.iter_mut().enumerate() {
        let from = load(&texts.begins(first + i * 8));
        let lengths = _mm512_sub_epi64(load(&texts.begins(first + i * 8 + 1)), from);
        let two = _mm512_cmpge_epu64_mask(lengths, all(24));
        let heads = _mm512_or_si512(lengths, all(major.into()));
        let long = _mm512_or_si512(_mm512_slli_epi64(lengths, 8), all((major | 24).into()));
        let heads = _mm512_mask_mov_epi64(heads, two, long);
        let low = _mm512_or_si512(names.0, _mm512_sll_epi64(heads, left));
        let high = _mm512_or_si512(
            names.1,
            _mm512_or_si512(_mm512_srl_epi64(heads, right), _mm512_sll_epi64(heads, over)),
        );
        stage(&mut values.0.as_chunks_mut::<8>().0[i], low, high);
        let starts = load(cursors);
        let to = _mm512_add_epi64(starts, _mm512_mask_mov_epi64(all(length + 1), two, all(length + 2)));
        store(&mut places.0.as_chunks_mut::<8>().0[i], starts);
        store(&mut behind.0.as_chunks_mut::<8>().0[i], to);
        store(cursors, _mm512_add_epi64(to, lengths));
    }
    let (values, places, behind) = (&values.0[..by_eight], &places.0[..by_eight], &behind.0[..by_eight]);
    let room = chunks.len() * 16 + 16 + SHORT;
    assert!(check(bytes, places, room), "slots have room for a name and a value");
    if within == 0 {
        for at in places {
            name.put(bytes, *at);
        }
    }
    let out = bytes.as_mut_ptr();
    for (row, ((at, head), to)) in places.iter().zip(values).zip(behind).enumerate() {
        let from = texts.begin(first + row);
        // SAFETY: `check` found room for all chunks of the name, 16 bytes and `SHORT` bytes behind each
        // cursor, and a text goes at most two bytes behind the name. `SHORT` bytes are readable from
        // where each begins: none does behind `last`.
        unsafe {
            out.add(*at + length - within).cast::<u128>().write_unaligned(*head);
            let text = all_bytes.as_ptr().add(from).cast::<[u8; SHORT]>().read();
            out.add(*to).cast::<[u8; SHORT]>().write(text);
        }
    }
    by_eight
}
