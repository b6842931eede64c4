//! How fast this machine hashes alone: what signing is measured against.

use std::time::Instant;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::pool::pool;
use crate::sha::{Hasher, Keying, PADDING_ROOM, Way, pad};

/// Messages that one thread hashes again and again; few enough to stay in its first cache.
const GROUP: usize = 64;

/// Hash `messages` messages of `bytes` bytes each on all cores; nothing is encoded.
///
/// Gives the seconds that each way of hashing took that this processor has. The first is the `sha2` crate,
/// one message at a time; the last is how the signer hashes.
#[pyfunction]
pub fn _sha256_limit(py: Python<'_>, messages: usize, bytes: usize) -> PyResult<Vec<(&'static str, f64)>> {
    let pool = pool().map_err(PyRuntimeError::new_err)?;
    let seconds = |hasher: &Hasher| {
        let start = Instant::now();
        pool.install(|| {
            (0..messages.div_ceil(GROUP)).into_par_iter().with_min_len(64).for_each_init(
                || {
                    let slot = (bytes + PADDING_ROOM).next_multiple_of(64);
                    let mut blocks = vec![[7_u8; 64]; slot / 64 * GROUP];
                    let spans: Vec<_> = (0..GROUP)
                        .map(|row| {
                            let start = row * slot;
                            pad(blocks.as_flattened_mut(), start, start + bytes, hasher.keying())
                        })
                        .collect();
                    (blocks, spans, [[0; 32]; GROUP])
                },
                |(blocks, spans, out), _| {
                    hasher.hash(blocks, spans, out);
                    std::hint::black_box(out);
                },
            );
        });
        start.elapsed().as_secs_f64()
    };
    let each = |way: Way| (way.name(), seconds(&Hasher::by(way, Keying::new(None))));
    Ok(py.detach(|| Way::all().into_iter().map(each).collect()))
}
