//! Buffers that are used again: fresh memory is cleared by the system first, page by page.

use std::sync::{Mutex, PoisonError};

/// Buffers that wait for their next use.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// As many are kept, of at most this size each: what a batch of the reader needs, and not much more.
const SPARE_BUFFERS: usize = 16;
const SPARE_BYTES: usize = 6 << 20;

/// A buffer that goes back to the spare ones when nobody needs it any more.
pub struct Recycled {
    bytes: Vec<u8>,
    length: usize,
}

impl Recycled {
    /// A buffer of `length` bytes, and `slack` more to scribble on, with whatever was in it before.
    pub fn of(length: usize, slack: usize) -> Self {
        let mut bytes = spare(length + slack).unwrap_or_default();
        if bytes.len() < length + slack {
            // What is in it is not worth copying.
            bytes.clear();
            bytes.resize(length + slack, 0);
        }
        Self { bytes, length }
    }

    /// Its bytes, the slack and more included.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The smallest spare buffer that is large enough, or else any.
fn spare(length: usize) -> Option<Vec<u8>> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = (0..spare.len()).filter(|at| spare[*at].len() >= length).min_by_key(|at| spare[*at].len());
    fitting.map(|at| spare.swap_remove(at)).or_else(|| spare.pop())
}

impl AsRef<[u8]> for Recycled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS && self.bytes.capacity() <= SPARE_BYTES {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}
