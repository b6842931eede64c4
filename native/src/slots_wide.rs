//! Eight encoded values at a time written into the slots of their rows.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_loadu_si128, _mm256_mask_loadu_epi8,
    _mm256_storeu_si256, _mm256_zextsi128_si256, _mm512_add_epi64, _mm512_cmpge_epu64_mask,
    _mm512_loadu_si512, _mm512_mask_add_epi64, _mm512_mask_mov_epi64, _mm512_maskz_mov_epi64,
    _mm512_max_epu64, _mm512_or_si512, _mm512_permutex2var_epi64, _mm512_reduce_max_epu64, _mm512_set_epi64,
    _mm512_set1_epi64, _mm512_sll_epi64, _mm512_slli_epi64, _mm512_srl_epi64, _mm512_storeu_si512,
    _mm512_sub_epi64, _mm512_zextsi128_si512,
};

use crate::cell_wide::Eight;
use crate::sha::{PADDING_ROOM, Span};
use crate::slots::{Name, Rows, SHORT, Slots, Staged};

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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load_16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Whether `bytes` holds so many bytes from each of the places on.
fn check(bytes: &[u8], places: &[usize], count: usize) -> bool {
    let last = places.iter().fold(0, |last, place| last.max(*place));
    bytes.len() >= count && last <= bytes.len() - count
}

/// Write the name and the value of each row that has one and give how many rows are done: those behind the
/// last eight are left. `eight(row)` encodes the values of the rows `row..row + 8` of the batch, and
/// `put(row, bytes, at)` writes an odd one and gives where it ends.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill(
    (first, present): Rows,
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
        let ends = _mm512_add_epi64(_mm512_add_epi64(starts, lengths), all(length));
        store(cursors, _mm512_mask_mov_epi64(starts, (present >> (i * 8)) as u8, ends));
        stage(&mut values.0.as_chunks_mut::<8>().0[i], low, high);
        odd_rows |= u64::from(odd) << (i * 8);
    }
    let (values, places) = (&values.0[..by_eight], &places.0[..by_eight]);
    assert!(check(bytes, places, chunks.len() * 16 + 16), "slots have room for a name and a value");
    let out = bytes.as_mut_ptr();
    if let [chunk] = chunks {
        // Nearly all names: a value comes behind its name in a register, and both are one store.
        let chunk = _mm256_zextsi128_si256(load_16(chunk));
        let behind = 0xffff << length;
        for (at, value) in places.iter().zip(values) {
            // SAFETY: the 16 bytes that are read are those of the value. `check` found room for 32 bytes.
            unsafe {
                let from = std::ptr::from_ref(value).cast::<i8>().wrapping_sub(length);
                let both = _mm256_mask_loadu_epi8(chunk, behind, from);
                _mm256_storeu_si256(out.add(*at).cast(), both);
            }
        }
    } else {
        for (at, value) in places.iter().zip(values) {
            let at = name.put(bytes, *at);
            bytes[at..at + 16].copy_from_slice(&value.to_le_bytes());
        }
    }
    odd_rows &= present;
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

/// The same for texts, none if one is long or near the end of all. `major` is the type of their heads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn fill_texts(
    (first, present): Rows,
    name: &Name,
    slots: &mut Slots,
    texts: &impl Texts,
    major: u8,
) -> usize {
    let all_bytes = texts.values();
    let (chunks, length) = name.parts();
    let (bytes, cursors, Staged { values, places, texts: behind }) = slots.staged();
    let (eights, _) = cursors.as_chunks_mut::<8>();
    let by_eight = eights.len() * 8;
    let Some(last) = all_bytes.len().checked_sub(SHORT) else { return 0 };
    // A name and the head behind it are one store where both fit 16 bytes.
    let within = if length <= 14 { length } else { 0 };
    let chunk = if within > 0 { u128::from_le_bytes(chunks[0]) } else { 0 };
    let names = (all(chunk as u64 as usize), all((chunk >> 64) as u64 as usize));
    let bits = within as i64 * 8;
    // Shifts by 64 bits or more, negative ones among them, give 0.
    let (left, right, over) =
        (_mm_cvtsi64_si128(bits), _mm_cvtsi64_si128(64 - bits), _mm_cvtsi64_si128(bits - 64));
    let (mut longest, mut latest) = (all(0), all(0));
    for (i, cursors) in eights.iter_mut().enumerate() {
        let from = load(&texts.begins(first + i * 8));
        let lengths = _mm512_sub_epi64(load(&texts.begins(first + i * 8 + 1)), from);
        let present = (present >> (i * 8)) as u8;
        let lengths = _mm512_maskz_mov_epi64(present, lengths);
        (longest, latest) = (_mm512_max_epu64(longest, lengths), _mm512_max_epu64(latest, from));
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
        store(cursors, _mm512_mask_add_epi64(starts, present, to, lengths));
    }
    let (values, places, behind) = (&values.0[..by_eight], &places.0[..by_eight], &behind.0[..by_eight]);
    let longest = _mm512_reduce_max_epu64(longest) as usize;
    if longest >= SHORT || _mm512_reduce_max_epu64(latest) as usize > last {
        cursors[..by_eight].copy_from_slice(places);
        return 0;
    }
    let room = chunks.len() * 16 + 16 + SHORT;
    assert!(check(bytes, places, room), "slots have room for a name and a value");
    let out = bytes.as_mut_ptr();
    if within > 0 && longest < 24 && length + 1 + longest <= SHORT {
        // Name, head and text are one store.
        let mask = u32::MAX << (length + 1);
        for (row, (at, head)) in places.iter().zip(values).enumerate() {
            let from = texts.begin(first + row);
            let head = _mm256_zextsi128_si256(load_16(&head.to_le_bytes()));
            // SAFETY: what is read are at most `SHORT` bytes from where the text begins, and no text begins
            // behind `last`. `check` found room for as many.
            unsafe {
                let from = all_bytes.as_ptr().wrapping_add(from).wrapping_sub(length + 1);
                let all = _mm256_mask_loadu_epi8(head, mask, from.cast());
                _mm256_storeu_si256(out.add(*at).cast(), all);
            }
        }
        return by_eight;
    }
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

/// Pad the message of each row, as `pad` does. `before` is how many bytes were hashed before it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn pad_all(bytes: &mut [u8], (starts, ends): (&[usize], &[usize]), before: usize, spans: &mut Vec<Span>) {
    assert!(check(bytes, ends, PADDING_ROOM), "slots have room for the padding");
    let out = bytes.as_mut_ptr();
    let padding = _mm512_zextsi128_si512(_mm_cvtsi32_si128(0x80));
    spans.resize(starts.len(), Span::default());
    for ((start, end), span) in starts.iter().zip(ends).zip(spans) {
        let bits = ((end - start + before) as u64) << 3;
        // Slots start where blocks do.
        let last = (end + 72) / 64 * 64 - 8;
        // SAFETY: `check` found room for 72 bytes; the last eight begin at most 64 behind the end.
        unsafe {
            _mm512_storeu_si512(out.add(*end).cast(), padding);
            out.add(last).cast::<[u8; 8]>().write(bits.to_be_bytes());
        }
        *span = Span { first: start / 64, count: (last + 8 - start) / 64 };
    }
}
