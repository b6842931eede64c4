//! SHA-256 of 16 messages side by side, one in each 32-bit lane of AVX-512 registers (S. Gueron and
//! V. Krasnov, "Simultaneous hashing of multiple messages", 2012).

use core::arch::x86_64::{
    __m512i, __mmask16, _mm512_add_epi32, _mm512_loadu_si512, _mm512_mask_add_epi32,
    _mm512_permutex2var_epi64, _mm512_ror_epi32, _mm512_set_epi64, _mm512_set1_epi32, _mm512_shuffle_epi8,
    _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use sha2::block_api::compress256;

use crate::sha::{Block, Digest, ROUND_CONSTANTS, Span, Started, State, from_bytes, to_bytes};
use crate::sha_pairs::hash_pairs;

/// How many messages go side by side.
const LANES: usize = 16;

/// How many messages are put in order at a time.
const GROUP: usize = 64;

/// How many blocks a message needs to share its place in the order with all that are longer, until
/// those are sorted by themselves.
const LONG: usize = 31;

/// The fewest messages that are worth a compression of 16: where the SHA instructions can take them
/// instead (measured on Zen 4), and where there are none (an estimate).
const LEAST_OF_PAIRS: usize = 11;
const LEAST_OF_PLAIN: usize = 2;

/// Eight state words, or sixteen of the message, of each lane.
type Words<const COUNT: usize> = [__m512i; COUNT];

#[inline]
#[target_feature(enable = "avx512f")]
fn load(block: &Block) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const COUNT: usize, T: Copy>(to: &mut [T; COUNT], value: __m512i) {
    const { assert!(size_of::<[T; COUNT]>() == 64) };
    // SAFETY: the reference is to 64 writable bytes, all of whose values are integers, and this store
    // asks for no alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swap_bytes(words: __m512i) -> __m512i {
    let (high, low) = (0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    _mm512_shuffle_epi8(words, _mm512_set_epi64(high, low, high, low, high, low, high, low))
}

/// The words of 16 blocks: word `i` of every block comes into register `i`, in the order of the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(blocks: [&Block; LANES]) -> Words<16> {
    let mut rows = [_mm512_set1_epi32(0); 16];
    for (row, block) in rows.iter_mut().zip(blocks) {
        *row = swap_bytes(load(block));
    }
    // Each quarter of a register becomes one word of four blocks.
    let mut quarters = rows;
    for four in 0..4 {
        let [r0, r1, r2, r3] = [rows[four * 4], rows[four * 4 + 1], rows[four * 4 + 2], rows[four * 4 + 3]];
        let (low01, high01) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (low23, high23) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        quarters[four * 4] = _mm512_unpacklo_epi64(low01, low23);
        quarters[four * 4 + 1] = _mm512_unpackhi_epi64(low01, low23);
        quarters[four * 4 + 2] = _mm512_unpacklo_epi64(high01, high23);
        quarters[four * 4 + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    let mut words = quarters;
    for column in 0..4 {
        let [q0, q1, q2, q3] =
            [quarters[column], quarters[column + 4], quarters[column + 8], quarters[column + 12]];
        let (even01, odd01) = (_mm512_shuffle_i32x4(q0, q1, 0x88), _mm512_shuffle_i32x4(q0, q1, 0xDD));
        let (even23, odd23) = (_mm512_shuffle_i32x4(q2, q3, 0x88), _mm512_shuffle_i32x4(q2, q3, 0xDD));
        words[column] = _mm512_shuffle_i32x4(even01, even23, 0x88);
        words[column + 4] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
        words[column + 8] = _mm512_shuffle_i32x4(even01, even23, 0xDD);
        words[column + 12] = _mm512_shuffle_i32x4(odd01, odd23, 0xDD);
    }
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32(a, b, c, 0x96)
}

/// One round (FIPS 180-4, 6.2.2, step 3). The eight words stay in place and change their roles.
#[inline]
#[target_feature(enable = "avx512f")]
fn round<const AT: usize>(state: &mut Words<8>, word: __m512i, constant: u32) {
    let [a, b, c, d] =
        [state[(16 - AT) % 8], state[(17 - AT) % 8], state[(18 - AT) % 8], state[(19 - AT) % 8]];
    let [e, f, g, h] =
        [state[(20 - AT) % 8], state[(21 - AT) % 8], state[(22 - AT) % 8], state[(23 - AT) % 8]];
    let sum1 = xor(_mm512_ror_epi32(e, 6), _mm512_ror_epi32(e, 11), _mm512_ror_epi32(e, 25));
    let choice = _mm512_ternarylogic_epi32(e, f, g, 0xCA);
    let known = _mm512_add_epi32(h, _mm512_add_epi32(word, _mm512_set1_epi32(constant.cast_signed())));
    let first = _mm512_add_epi32(_mm512_add_epi32(known, choice), sum1);
    let sum0 = xor(_mm512_ror_epi32(a, 2), _mm512_ror_epi32(a, 13), _mm512_ror_epi32(a, 22));
    let majority = _mm512_ternarylogic_epi32(a, b, c, 0xE8);
    state[(19 - AT) % 8] = _mm512_add_epi32(d, first);
    state[(23 - AT) % 8] = _mm512_add_epi32(first, _mm512_add_epi32(sum0, majority));
}

/// The word of the message schedule that is 16 after word `AT`, written over it.
#[inline]
#[target_feature(enable = "avx512f")]
fn extend<const AT: usize>(words: &mut Words<16>) {
    let (early, late) = (words[(AT + 1) % 16], words[(AT + 14) % 16]);
    let early = xor(_mm512_ror_epi32(early, 7), _mm512_ror_epi32(early, 18), _mm512_srli_epi32(early, 3));
    let late = xor(_mm512_ror_epi32(late, 17), _mm512_ror_epi32(late, 19), _mm512_srli_epi32(late, 10));
    let sum = _mm512_add_epi32(_mm512_add_epi32(words[AT], words[(AT + 9) % 16]), early);
    words[AT] = _mm512_add_epi32(sum, late);
}

/// For each of 16 rounds; written out, since a loop over registers is not unrolled for sure.
macro_rules! sixteen {
    ($each:ident) => {
        $each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
}

/// One block into the state of each lane; those that are not `active` keep theirs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut Words<8>, active: __mmask16, blocks: [&Block; LANES]) {
    let mut words = transpose(blocks);
    let mut now = *state;
    let (constants, _) = ROUND_CONSTANTS.as_chunks::<16>();
    for constants in &constants[..3] {
        macro_rules! rounds {
            ($($at:literal)*) => {$(
                round::<$at>(&mut now, words[$at], constants[$at]);
                extend::<$at>(&mut words);
            )*};
        }
        sixteen!(rounds);
    }
    let constants = &constants[3];
    macro_rules! rounds {
        ($($at:literal)*) => {$( round::<$at>(&mut now, words[$at], constants[$at]); )*};
    }
    sixteen!(rounds);
    for (state, now) in state.iter_mut().zip(now) {
        *state = _mm512_mask_add_epi32(*state, active, *state, now);
    }
}

/// The digests of all lanes; that of lane `4 * q + r` is at `[r][q]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn digests(state: &Words<8>) -> [[Digest; 4]; 4] {
    let mut halves = [[_mm512_set1_epi32(0); 4]; 2];
    for (half, words) in halves.iter_mut().zip(state.as_chunks::<4>().0) {
        let [w0, w1, w2, w3] = *words;
        let [w0, w1, w2, w3] = [swap_bytes(w0), swap_bytes(w1), swap_bytes(w2), swap_bytes(w3)];
        let (low01, high01) = (_mm512_unpacklo_epi32(w0, w1), _mm512_unpackhi_epi32(w0, w1));
        let (low23, high23) = (_mm512_unpacklo_epi32(w2, w3), _mm512_unpackhi_epi32(w2, w3));
        *half = [
            _mm512_unpacklo_epi64(low01, low23),
            _mm512_unpackhi_epi64(low01, low23),
            _mm512_unpacklo_epi64(high01, high23),
            _mm512_unpackhi_epi64(high01, high23),
        ];
    }
    let first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    let last = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    let mut out = [[[0; 32]; 4]; 4];
    for (row, four) in out.iter_mut().enumerate() {
        let (pairs, _) = four.as_chunks_mut::<2>();
        store(&mut pairs[0], _mm512_permutex2var_epi64(halves[0][row], first, halves[1][row]));
        store(&mut pairs[1], _mm512_permutex2var_epi64(halves[0][row], last, halves[1][row]));
    }
    out
}

/// Put messages in order, those of many blocks first, and give their number.
fn put_in_order(spans: &[Span], order: &mut [u8; GROUP]) {
    let same = spans.iter().all(|span| span.count == spans[0].count);
    if same {
        *order = std::array::from_fn(|message| message as u8);
        return;
    }
    let place = |span: &Span| LONG - span.count.min(LONG);
    let mut ends = [0_u8; LONG + 1];
    for span in spans {
        ends[place(span)] += 1;
    }
    let longs = usize::from(ends[0]);
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    for (message, span) in spans.iter().enumerate().rev() {
        let end = &mut ends[place(span)];
        *end -= 1;
        order[usize::from(*end) % GROUP] = message as u8;
    }
    order[..longs].sort_unstable_by_key(|message| std::cmp::Reverse(spans[usize::from(*message)].count));
}

/// Messages that are left when too few lanes would be filled.
struct Left {
    messages: [Started; GROUP],
    count: usize,
}

/// Hash all messages, 16 at a time; those that would fill too few lanes, and the ends of those that are
/// much longer than their neighbours, go two at a time where `has_sha`, else one at a time.
#[target_feature(enable = "avx512f,avx512bw")]
pub fn hash_wide(initial: &State, blocks: &[Block], spans: &[Span], out: &mut [Digest], has_sha: bool) {
    for (spans, out) in spans.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        hash_group(initial, blocks, spans, out, has_sha);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn hash_group(initial: &State, blocks: &[Block], spans: &[Span], out: &mut [Digest], has_sha: bool) {
    let least = if has_sha { LEAST_OF_PAIRS } else { LEAST_OF_PLAIN };
    if spans.len() < least {
        let messages = spans.iter().enumerate();
        let messages = messages.map(|(digest, span)| Started { state: *initial, span: *span, digest });
        return finish(blocks, messages, out, has_sha);
    }
    let mut order = [0; GROUP];
    put_in_order(spans, &mut order);
    let mut left = Left { messages: [Started::default(); GROUP], count: 0 };
    for lanes in order[..spans.len()].chunks(LANES) {
        let mut leave = |lane: usize, state: State, steps: usize| {
            let digest = usize::from(lanes[lane]);
            let Span { first, count } = spans[digest];
            let span = Span { first: first + steps, count: count - steps };
            left.messages[left.count] = Started { state, span, digest };
            left.count += 1;
        };
        if lanes.len() < least {
            for lane in 0..lanes.len() {
                leave(lane, *initial, 0);
            }
            continue;
        }
        let count = |lane: usize| spans[usize::from(lanes[lane])].count;
        let steps = count(least - 1);
        let state = run(initial, blocks, spans, lanes, steps);
        let digests = digests(&state);
        let longer = (0..lanes.len()).take_while(|lane| count(*lane) > steps).count();
        for lane in longer..lanes.len() {
            out[usize::from(lanes[lane])] = digests[lane % 4][lane / 4];
        }
        for lane in 0..longer {
            leave(lane, from_bytes(&digests[lane % 4][lane / 4]), steps);
        }
    }
    finish(blocks, left.messages[..left.count].iter().copied(), out, has_sha);
}

/// The states of 16 messages or fewer, in order of falling length, after so many steps or their end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn run(initial: &State, blocks: &[Block], spans: &[Span], lanes: &[u8], steps: usize) -> Words<8> {
    let mut state = [_mm512_set1_epi32(0); 8];
    for (words, word) in state.iter_mut().zip(initial) {
        *words = _mm512_set1_epi32(word.cast_signed());
    }
    // Lanes without a message repeat the shortest one.
    let mut at = [0; LANES];
    let mut last = [0; LANES];
    for lane in 0..LANES {
        let Span { first, count } = spans[usize::from(lanes[lane.min(lanes.len() - 1)])];
        (at[lane], last[lane]) = (first, first + count - 1);
    }
    for step in 0..steps {
        let mut active = 0;
        let mut current = [&blocks[at[0]]; LANES];
        for lane in 0..LANES {
            let block = at[lane] + step;
            current[lane] = &blocks[block.min(last[lane])];
            active |= u16::from(block <= last[lane]) << lane;
        }
        compress(&mut state, active, current);
    }
    state
}

fn finish(blocks: &[Block], messages: impl Iterator<Item = Started>, out: &mut [Digest], has_sha: bool) {
    if has_sha {
        // SAFETY: `has_sha` says that the processor has the instructions that `hash_pairs` is compiled for.
        unsafe { hash_pairs(blocks, messages, out) };
        return;
    }
    for Started { mut state, span, digest } in messages {
        compress256(&mut state, &blocks[span.first..span.first + span.count]);
        out[digest] = to_bytes(&state);
    }
}
