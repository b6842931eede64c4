//! `checksums`: XXH3 (64 bits) over the parts of a file that is mapped, side by side.

use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;
use twox_hash::XxHash3_64;

use crate::exchange::import;
use crate::pool::pool;

/// Give the checksum of the bytes up to each end, from the one before. `content` is an Arrow array of uint8;
/// the ends ascend, and none is past its length.
#[pyfunction]
pub fn checksums(py: Python<'_>, content: &Bound<'_, PyAny>, ends: Vec<usize>) -> PyResult<Vec<u64>> {
    let (array, _) = import(content)?;
    let bytes = array
        .as_primitive_opt::<UInt8Type>()
        .ok_or_else(|| PyValueError::new_err("the content must be an array of uint8"))?
        .values();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let parts: Option<Vec<&[u8]>> = starts.zip(&ends).map(|(start, end)| bytes.get(start..*end)).collect();
    let parts = parts.ok_or_else(|| PyValueError::new_err("the ends must ascend, and lie in the content"))?;
    let pool = pool().map_err(PyRuntimeError::new_err)?;
    Ok(py.detach(|| {
        pool.install(|| parts.par_iter().with_max_len(1).map(|part| XxHash3_64::oneshot(part)).collect())
    }))
}
