//! `rundiff._native`: the parts of Rundiff that meet every record, at the speed of the processor.
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        reason = "what only wide registers need stands among what every processor does"
    )
)]

mod cbor;
mod cell;
#[cfg(target_arch = "x86_64")]
mod cell_wide;
mod checksum;
mod examine;
mod exchange;
mod index;
mod joined;
mod levels;
mod limit;
mod log;
mod lookup;
mod parquet;
mod picking;
mod pool;
mod present;
mod rows;
mod segment;
mod sha;
#[cfg(target_arch = "x86_64")]
mod sha_pairs;
#[cfg(target_arch = "x86_64")]
mod sha_wide;
mod side_by_side;
mod sign;
mod slots;
#[cfg(target_arch = "x86_64")]
mod slots_wide;
mod source;
mod spare;
mod text;
mod tree;

#[pyo3::pymodule(name = "_native")]
mod native {
    use pyo3::exceptions::PyRuntimeError;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::checksum::checksums;
    #[pymodule_export]
    use super::examine::{Examined, Seen, examine};
    #[pymodule_export]
    use super::joined::JoinedParquet;
    #[pymodule_export]
    use super::limit::_sha256_limit;
    #[pymodule_export]
    use super::log::find_records;
    #[pymodule_export]
    use super::lookup::Lookup;
    #[pymodule_export]
    use super::parquet::ParquetReader;
    #[pymodule_export]
    use super::sign::{_sign_plain, sign, sign2};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python sees")]
    const version: &str = env!("CARGO_PKG_VERSION");

    /// How many threads share the work.
    #[pyfunction]
    fn threads() -> PyResult<usize> {
        let pool = super::pool::pool().map_err(PyRuntimeError::new_err)?;
        Ok(pool.current_num_threads())
    }
}
