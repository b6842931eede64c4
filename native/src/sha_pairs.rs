//! SHA-256 in the SHA instructions of x86 processors, two messages in flight: after one another they
//! would leave the SHA unit waiting for its own results.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use sha2::block_api::compress256;

use crate::sha::{Block, Digest, ROUND_CONSTANTS, Span, Started, State, to_bytes};

/// The eight state words in the order that the SHA instructions take: ABEF and CDGH.
#[derive(Clone, Copy)]
struct Words {
    abef: __m128i,
    cdgh: __m128i,
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_words(words: &[u32; 4]) -> __m128i {
    // SAFETY: four words are 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store_words(words: &mut [u32; 4], value: __m128i) {
    // SAFETY: four words are 16 writable bytes, and this store asks for no alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn to_words(state: &State) -> Words {
    let (halves, _) = state.as_chunks::<4>();
    let cdab = _mm_shuffle_epi32(load_words(&halves[0]), 0xB1);
    let efgh = _mm_shuffle_epi32(load_words(&halves[1]), 0x1B);
    Words { abef: _mm_alignr_epi8(cdab, efgh, 8), cdgh: _mm_blend_epi16(efgh, cdab, 0xF0) }
}

#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn to_state(words: Words) -> State {
    let feba = _mm_shuffle_epi32(words.abef, 0x1B);
    let dchg = _mm_shuffle_epi32(words.cdgh, 0xB1);
    let mut state = [0; 8];
    let (halves, _) = state.as_chunks_mut::<4>();
    store_words(&mut halves[0], _mm_blend_epi16(feba, dchg, 0xF0));
    store_words(&mut halves[1], _mm_alignr_epi8(dchg, feba, 8));
    state
}

#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn message(block: &Block) -> [__m128i; 4] {
    let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let (parts, _) = block.as_chunks::<16>();
    [
        _mm_shuffle_epi8(load(&parts[0]), big_endian),
        _mm_shuffle_epi8(load(&parts[1]), big_endian),
        _mm_shuffle_epi8(load(&parts[2]), big_endian),
        _mm_shuffle_epi8(load(&parts[3]), big_endian),
    ]
}

/// The next four words of the message schedule, written over the four oldest ones.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn extend(w: &mut [__m128i; 4], at: usize) {
    let oldest = _mm_sha256msg1_epu32(w[at], w[(at + 1) % 4]);
    let middle = _mm_alignr_epi8(w[(at + 3) % 4], w[(at + 2) % 4], 4);
    w[at] = _mm_sha256msg2_epu32(_mm_add_epi32(oldest, middle), w[(at + 3) % 4]);
}

/// One block each into two states: the lanes' rounds don't depend on one another.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress(lanes: &mut [Words; 2], blocks: [&Block; 2]) {
    let before = *lanes;
    let mut w = [message(blocks[0]), message(blocks[1])];
    for (round, constants) in ROUND_CONSTANTS.as_chunks::<4>().0.iter().enumerate() {
        let at = round % 4;
        let constants = load_words(constants);
        let mut sum = [constants; 2];
        for lane in 0..2 {
            if round >= 4 {
                extend(&mut w[lane], at);
            }
            sum[lane] = _mm_add_epi32(w[lane][at], constants);
        }
        for lane in 0..2 {
            let Words { abef, cdgh } = &mut lanes[lane];
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum[lane]);
        }
        for lane in 0..2 {
            let Words { abef, cdgh } = &mut lanes[lane];
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum[lane], 0x0E));
        }
    }
    for lane in 0..2 {
        lanes[lane].abef = _mm_add_epi32(lanes[lane].abef, before[lane].abef);
        lanes[lane].cdgh = _mm_add_epi32(lanes[lane].cdgh, before[lane].cdgh);
    }
}

/// Hash all messages, two at a time; a lane that ends takes the next message. The `sha2` crate, which is
/// the faster one for a single message, goes on with the last.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub fn hash_pairs(blocks: &[Block], mut messages: impl Iterator<Item = Started>, out: &mut [Digest]) {
    let Some(first) = messages.next() else { return };
    let mut work = [first; 2];
    match messages.next() {
        Some(second) => work[1] = second,
        None => work[1].span.count = 0,
    }
    let mut words = [to_words(&work[0].state), to_words(&work[1].state)];
    while work[0].span.count > 0 && work[1].span.count > 0 {
        let shared = work[0].span.count.min(work[1].span.count);
        let one = &blocks[work[0].span.first..work[0].span.first + shared];
        let other = &blocks[work[1].span.first..work[1].span.first + shared];
        for (a, b) in one.iter().zip(other) {
            compress(&mut words, [a, b]);
        }
        for lane in 0..2 {
            work[lane].span.first += shared;
            work[lane].span.count -= shared;
            if work[lane].span.count == 0 {
                out[work[lane].digest] = to_bytes(&to_state(words[lane]));
                if let Some(next) = messages.next() {
                    work[lane] = next;
                    words[lane] = to_words(&next.state);
                }
            }
        }
    }
    for lane in 0..2 {
        let Started { span: Span { first, count }, digest, .. } = work[lane];
        if count > 0 {
            let mut state = to_state(words[lane]);
            compress256(&mut state, &blocks[first..first + count]);
            out[digest] = to_bytes(&state);
        }
    }
}
