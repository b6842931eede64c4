//! SHA-256 (FIPS 180-4) of many short messages that are already padded, and HMAC (RFC 2104) over it.
//!
//! One message after another leaves the SHA unit of x86 processors waiting for its own results,
//! so two messages are kept in flight there. Elsewhere the `sha2` crate does the work, with the
//! processor's instructions where it knows them.

use sha2::block_api::compress256;

pub type Block = [u8; 64];
pub type State = [u32; 8];
pub type Digest = [u8; 32];

/// The most bytes that padding adds to a message: 0x80, zeros, and eight bytes of length.
pub const PADDING_ROOM: usize = 72;

const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A padded message: `count` blocks from block `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub first: usize,
    pub count: usize,
}

/// What a message is hashed under: nothing, or an HMAC key as the states after its two pads.
#[derive(Clone, Debug)]
pub struct Keying {
    inner: State,
    outer: Option<State>,
}

impl Keying {
    pub fn new(key: Option<&[u8]>) -> Self {
        let Some(key) = key else {
            return Self { inner: INITIAL, outer: None };
        };
        let mut padded = [0_u8; 64];
        if key.len() > 64 {
            padded[..32].copy_from_slice(&digest(key));
        } else {
            padded[..key.len()].copy_from_slice(key);
        }
        let after = |pad: u8| {
            let mut state = INITIAL;
            compress256(&mut state, &[padded.map(|byte| byte ^ pad)]);
            state
        };
        Self { inner: after(0x36), outer: Some(after(0x5c)) }
    }

    /// How many bytes were hashed before the message: they count in its length.
    fn before(&self) -> usize {
        if self.outer.is_some() { 64 } else { 0 }
    }
}

/// Pad the message `bytes[start..end]` in place; `bytes` needs `PADDING_ROOM` bytes after `end`.
#[inline]
pub fn pad(bytes: &mut [u8], start: usize, end: usize, keying: &Keying) -> Span {
    let room: &mut [u8; PADDING_ROOM] = (&mut bytes[end..end + PADDING_ROOM]).try_into().expect("its length");
    *room = [0; PADDING_ROOM];
    room[0] = 0x80;
    let count = (end - start + 9).div_ceil(64);
    let bits = ((end - start + keying.before()) as u64) << 3;
    let last = start + count * 64;
    bytes[last - 8..last].copy_from_slice(&bits.to_be_bytes());
    Span { first: start / 64, count }
}

/// Hashes messages, several in flight where that pays.
#[derive(Clone, Debug)]
pub struct Hasher {
    keying: Keying,
    interleave: bool,
}

impl Hasher {
    pub fn new(keying: Keying) -> Self {
        Self { keying, interleave: processor_has_sha() }
    }

    /// One message at a time through the `sha2` crate, for comparison.
    pub fn plain(keying: Keying) -> Self {
        Self { keying, interleave: false }
    }

    pub fn keying(&self) -> &Keying {
        &self.keying
    }

    /// Give `out[i]` the digest, or the HMAC, of the message `spans[i]` of `blocks`.
    pub fn hash(&self, blocks: &[Block], spans: &[Span], out: &mut [Digest]) {
        assert_eq!(spans.len(), out.len(), "one digest per message");
        self.hash_from(&self.keying.inner, blocks, spans, out);
        let Some(outer) = &self.keying.outer else { return };
        let mut finals = [[0_u8; 64]; 64];
        let spans: [Span; 64] = std::array::from_fn(|first| Span { first, count: 1 });
        for group in out.chunks_mut(64) {
            for (block, digest) in finals.iter_mut().zip(group.iter()) {
                block[..32].copy_from_slice(digest);
                block[32] = 0x80;
                block[56..].copy_from_slice(&(96_u64 << 3).to_be_bytes());
            }
            self.hash_from(outer, &finals, &spans[..group.len()], group);
        }
    }

    fn hash_from(&self, initial: &State, blocks: &[Block], spans: &[Span], out: &mut [Digest]) {
        #[cfg(target_arch = "x86_64")]
        if self.interleave {
            // SAFETY: `interleave` is set only when the processor has the instructions that
            // `hash_pairs` is compiled for.
            unsafe { x86::hash_pairs(initial, blocks, spans, out) };
            return;
        }
        for (span, digest) in spans.iter().zip(out) {
            let mut state = *initial;
            compress256(&mut state, &blocks[span.first..span.first + span.count]);
            *digest = to_bytes(&state);
        }
    }
}

/// SHA-256 of one message.
pub fn digest(message: &[u8]) -> Digest {
    let mut blocks = vec![[0_u8; 64]; (message.len() + PADDING_ROOM).div_ceil(64)];
    let bytes = blocks.as_flattened_mut();
    bytes[..message.len()].copy_from_slice(message);
    let keying = Keying::new(None);
    let span = pad(bytes, 0, message.len(), &keying);
    let mut out = [[0; 32]];
    Hasher::new(keying).hash(&blocks, &[span], &mut out);
    out[0]
}

/// Whether SHA-256 runs in the processor's own instructions here, as far as is known.
pub fn processor_has_sha() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("sse4.1")
            && std::arch::is_x86_feature_detected!("ssse3")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[inline]
fn to_bytes(state: &State) -> Digest {
    let mut out = [0; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    out
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32, _mm_storeu_si128,
    };

    use super::{Block, Digest, Span, State, to_bytes};

    #[rustfmt::skip]
    const ROUND_CONSTANTS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

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

    /// One block each into `LANES` states: the lanes' rounds don't depend on one another.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn compress<const LANES: usize>(lanes: &mut [Words; LANES], blocks: [&Block; LANES]) {
        let before = *lanes;
        let mut w = [message(blocks[0]); LANES];
        for lane in 1..LANES {
            w[lane] = message(blocks[lane]);
        }
        for (round, constants) in ROUND_CONSTANTS.iter().enumerate() {
            let at = round % 4;
            let constants = load_words(constants);
            let mut sum = [constants; LANES];
            for lane in 0..LANES {
                if round >= 4 {
                    extend(&mut w[lane], at);
                }
                sum[lane] = _mm_add_epi32(w[lane][at], constants);
            }
            for lane in 0..LANES {
                let Words { abef, cdgh } = &mut lanes[lane];
                *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum[lane]);
            }
            for lane in 0..LANES {
                let Words { abef, cdgh } = &mut lanes[lane];
                *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum[lane], 0x0E));
            }
        }
        for lane in 0..LANES {
            lanes[lane].abef = _mm_add_epi32(lanes[lane].abef, before[lane].abef);
            lanes[lane].cdgh = _mm_add_epi32(lanes[lane].cdgh, before[lane].cdgh);
        }
    }

    /// What is left of the message that a lane works on, and where its digest goes.
    #[derive(Clone, Copy)]
    struct Progress {
        at: usize,
        left: usize,
        digest: usize,
    }

    impl Progress {
        fn start(spans: &[Span], digest: usize) -> Self {
            let Span { first, count } = spans[digest];
            Self { at: first, left: count, digest }
        }
    }

    /// Hash all messages, two at a time; a lane that ends takes the next message.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    pub fn hash_pairs(initial: &State, blocks: &[Block], spans: &[Span], out: &mut [Digest]) {
        let initial = to_words(initial);
        let mut words = [initial; 2];
        let mut next = spans.len().min(2);
        let mut work = match spans.len() {
            0 => return,
            1 => [Progress::start(spans, 0), Progress { at: 0, left: 0, digest: usize::MAX }],
            _ => [Progress::start(spans, 0), Progress::start(spans, 1)],
        };
        while work[0].left > 0 && work[1].left > 0 {
            let shared = work[0].left.min(work[1].left);
            let one = &blocks[work[0].at..work[0].at + shared];
            let other = &blocks[work[1].at..work[1].at + shared];
            for (a, b) in one.iter().zip(other) {
                compress(&mut words, [a, b]);
            }
            for lane in 0..2 {
                work[lane].at += shared;
                work[lane].left -= shared;
                if work[lane].left == 0 {
                    out[work[lane].digest] = to_bytes(&to_state(words[lane]));
                    if next < spans.len() {
                        work[lane] = Progress::start(spans, next);
                        words[lane] = initial;
                        next += 1;
                    }
                }
            }
        }
        for lane in 0..2 {
            let Progress { at, left, digest } = work[lane];
            if left > 0 {
                let mut alone = [words[lane]];
                for block in &blocks[at..at + left] {
                    compress(&mut alone, [block]);
                }
                out[digest] = to_bytes(&to_state(alone[0]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Lay messages out as the signer does, padded and block by block.
    fn hash_many(hasher: &Hasher, messages: &[&[u8]]) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut spans = Vec::new();
        for message in messages {
            let start = bytes.len();
            bytes.extend_from_slice(message);
            let end = bytes.len();
            bytes.resize((end + PADDING_ROOM).next_multiple_of(64), 0xee);
            spans.push(pad(&mut bytes, start, end, hasher.keying()));
        }
        let mut out = vec![[0; 32]; messages.len()];
        hasher.hash(bytes.as_chunks::<64>().0, &spans, &mut out);
        out.iter().map(|digest| hex(digest)).collect()
    }

    /// FIPS 180-4 examples and the NIST CAVP short messages.
    const VECTORS: [(&[u8], &str); 5] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
        ),
        (b"\xd3", "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"),
    ];

    #[test]
    fn agrees_with_the_published_digests_on_both_paths() {
        let messages: Vec<&[u8]> = VECTORS.iter().map(|(message, _)| *message).collect();
        let expected: Vec<String> = VECTORS.iter().map(|(_, digest)| (*digest).to_owned()).collect();
        for hasher in [Hasher::new(Keying::new(None)), Hasher::plain(Keying::new(None))] {
            assert_eq!(hash_many(&hasher, &messages), expected);
            for (message, digest) in VECTORS {
                assert_eq!(hash_many(&hasher, &[message]), [digest]);
            }
        }
    }

    #[test]
    fn a_million_letters() {
        assert_eq!(
            hex(&digest(&vec![b'a'; 1_000_000])),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn lanes_of_unequal_length_agree_with_one_at_a_time() {
        let text: Vec<u8> = (0..4000_u32).map(|i| (i * 31 % 251) as u8).collect();
        let messages: Vec<&[u8]> = (0..400).map(|i| &text[i..i + i * 7 % 700]).collect();
        let pairs = hash_many(&Hasher::new(Keying::new(None)), &messages);
        assert_eq!(pairs, hash_many(&Hasher::plain(Keying::new(None)), &messages));
    }

    /// RFC 4231, test cases 1, 2 and 6 (a key longer than a block).
    #[test]
    fn agrees_with_the_published_hmacs() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, expected) in cases {
            for hasher in [Hasher::new(Keying::new(Some(key))), Hasher::plain(Keying::new(Some(key)))] {
                assert_eq!(hash_many(&hasher, &vec![message; 131]), vec![expected; 131]);
            }
        }
    }
}
