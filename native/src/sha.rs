//! SHA-256 (FIPS 180-4) of many short messages that are already padded, and HMAC (RFC 2104) over it.
//!
//! On x86 processors messages are hashed side by side: 16 in AVX-512 registers, or two in flight in the
//! SHA instructions. Elsewhere the `sha2` crate does the work, with the processor's instructions where
//! it knows them.

use sha2::block_api::compress256;

#[cfg(target_arch = "x86_64")]
use crate::{sha_pairs::hash_pairs, sha_wide::hash_wide};

pub type Block = [u8; 64];
pub type State = [u32; 8];
pub type Digest = [u8; 32];

/// The most bytes that padding adds to a message: 0x80, zeros, and eight bytes of length.
pub const PADDING_ROOM: usize = 72;

const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// A padded message: `count` blocks from block `first` on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    pub first: usize,
    pub count: usize,
}

/// A message of which the blocks before `span` are in `state`, and whose digest goes to `out[digest]`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Started {
    pub state: State,
    pub span: Span,
    pub digest: usize,
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
    pub fn before(&self) -> usize {
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

/// How messages are hashed; one that comes later is faster wherever the processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One message at a time through the `sha2` crate.
    Plain,
    /// Two in flight in the processor's SHA instructions.
    Pairs,
    /// 16 side by side in AVX-512 registers.
    Wide,
}

impl Way {
    /// The ways that this processor has.
    pub fn all() -> Vec<Self> {
        let mut ways = vec![Self::Plain];
        if processor_has_sha() {
            ways.push(Self::Pairs);
        }
        if processor_has_avx512() {
            ways.push(Self::Wide);
        }
        ways
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Pairs => "pairs",
            Self::Wide => "wide",
        }
    }
}

/// Hashes messages, several at a time where that pays.
#[derive(Clone, Debug)]
pub struct Hasher {
    keying: Keying,
    way: Way,
    has_sha: bool,
}

impl Hasher {
    /// Hash in the fastest way that the processor has.
    pub fn new(keying: Keying) -> Self {
        let way = Way::all().pop().expect("there is always the plain one");
        Self { keying, way, has_sha: processor_has_sha() }
    }

    /// Hash in a way of one's own choice, for comparison. Panics if the processor does not have it.
    pub fn by(way: Way, keying: Keying) -> Self {
        assert!(Way::all().contains(&way), "this processor does not have {way:?}");
        Self { keying, way, has_sha: processor_has_sha() }
    }

    /// The same, but as on a processor without SHA instructions.
    #[cfg(test)]
    fn without_sha(self) -> Self {
        Self { has_sha: false, ..self }
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
        match self.way {
            Way::Plain => {}
            Way::Pairs => {
                let messages = spans.iter().enumerate();
                let messages =
                    messages.map(|(digest, span)| Started { state: *initial, span: *span, digest });
                // SAFETY: a `Hasher` has this way only when the processor has the instructions.
                return unsafe { hash_pairs(blocks, messages, out) };
            }
            // SAFETY: the same; and `has_sha` is true only when it has the SHA instructions, too.
            Way::Wide => return unsafe { hash_wide(initial, blocks, spans, out, self.has_sha) },
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

/// Whether 16 messages can be hashed side by side.
fn processor_has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[inline]
pub fn to_bytes(state: &State) -> Digest {
    let mut out = [0; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    out
}

/// The state that `to_bytes` makes this digest of.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn from_bytes(digest: &Digest) -> State {
    let mut state = [0; 8];
    for (word, bytes) in state.iter_mut().zip(digest.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    state
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

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

    /// One hasher for each way of this processor, and AVX-512 without the SHA instructions.
    fn hashers(key: Option<&[u8]>) -> Vec<Hasher> {
        let ways = Way::all().into_iter();
        let mut hashers: Vec<_> = ways.map(|way| Hasher::by(way, Keying::new(key))).collect();
        hashers.push(Hasher::new(Keying::new(key)).without_sha());
        hashers
    }

    /// The digests by the whole of the `sha2` crate, its padding included.
    fn expected(messages: &[&[u8]]) -> Vec<String> {
        messages.iter().map(|message| hex(&Sha256::digest(message))).collect()
    }

    struct Random(u64);

    impl Random {
        /// A number below `limit` (xorshift: G. Marsaglia, 2003).
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }

        fn text(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.below(256) as u8).collect()
        }
    }

    #[test]
    fn the_last_way_is_the_one_that_is_taken() {
        assert_eq!(Hasher::new(Keying::new(None)).way, *Way::all().last().unwrap());
        assert_eq!(Way::all()[0], Way::Plain);
    }

    #[test]
    fn agrees_with_the_published_digests_in_every_way() {
        let messages: Vec<&[u8]> = VECTORS.iter().map(|(message, _)| *message).collect();
        let digests: Vec<String> = VECTORS.iter().map(|(_, digest)| (*digest).to_owned()).collect();
        for hasher in hashers(None) {
            assert_eq!(hash_many(&hasher, &messages), digests);
            assert_eq!(hash_many(&hasher, &messages.repeat(16)), vec![digests.clone(); 16].concat());
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
    fn messages_of_any_number_and_length_agree_with_the_crate() {
        let mut random = Random(20);
        let text = random.text(4000);
        let hashers = hashers(None);
        for count in 0..=200 {
            let longest = if count % 16 == 15 { 3000 } else { [1, 60, 130, 500][random.below(4)] };
            let messages: Vec<_> = (0..count).map(|i| &text[i..i + random.below(longest)]).collect();
            let expected = expected(&messages);
            for hasher in &hashers {
                assert_eq!(hash_many(hasher, &messages), expected, "{hasher:?}, {count}");
            }
        }
    }

    #[test]
    fn every_length_agrees_at_every_place() {
        // From 56 bytes on, and again 64 later, a block of padding alone follows.
        let text = Random(21).text(300);
        let hashers = hashers(None);
        for shift in 0..16 {
            let messages: Vec<_> = (0..208).map(|i| &text[..(i * 17 + shift) % 208]).collect();
            let expected = expected(&messages);
            for hasher in &hashers {
                assert_eq!(hash_many(hasher, &messages), expected, "{hasher:?}, {shift}");
            }
        }
    }

    #[test]
    fn a_long_message_at_any_place_among_short_ones_agrees() {
        let text = Random(22).text(5_000);
        let hashers = hashers(None);
        for place in 0..66 {
            let mut messages: Vec<_> = (0..66).map(|i| &text[i..i + i * 3]).collect();
            messages[place] = &text;
            messages[(place + 7) % 66] = &text[..3_000];
            let expected = expected(&messages);
            for hasher in &hashers {
                assert_eq!(hash_many(hasher, &messages), expected, "{hasher:?}, {place}");
            }
        }
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
            for hasher in hashers(Some(key)) {
                assert_eq!(hash_many(&hasher, &vec![message; 131]), vec![expected; 131]);
            }
        }
    }
}
