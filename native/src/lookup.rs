//! `Lookup`: what a baseline holds of some keys, the overlay above the base.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, Int64Array, UInt8Array};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_schema::DataType;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::exchange::{export, import};
use crate::pool::pool;
use crate::segment::{Chunk, Segment};
use crate::sha::Digest;

/// Keys that are looked up side by side.
const GROUP: usize = 64;

/// Keys that one thread looks up at a time.
const TASK: usize = 64 * GROUP;

/// Flags of an entry.
const DELETED: u8 = 1;
const UNCERTAIN: u8 = 4;

/// What the baseline says of a record.
pub const NEW: u8 = 0;
pub const SAME: u8 = 1;
pub const CHANGED: u8 = 2;
const UNSIGNED: u8 = 3;

#[pyclass(frozen, module = "rundiff._native")]
pub struct Lookup {
    base: Segment,
    overlay: Segment,
}

/// The signatures of records to look up: keys, data, and where both are there.
struct Probe {
    keys: Buffer,
    data: Buffer,
    nulls: Option<NullBuffer>,
}

impl Probe {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

fn signatures(source: &Bound<'_, PyAny>, what: &str) -> PyResult<FixedSizeBinaryArray> {
    let (array, _) = import(source)?;
    match array.data_type() {
        DataType::FixedSizeBinary(32) => Ok(array.as_fixed_size_binary().clone()),
        other => Err(PyValueError::new_err(format!("{what} must be fixed_size_binary[32], not {other}"))),
    }
}

fn whole(array: &dyn Array, what: &str) -> PyResult<()> {
    match array.null_count() {
        0 => Ok(()),
        _ => Err(PyValueError::new_err(format!("{what} of a segment holds nulls"))),
    }
}

fn chunk(batch: &Bound<'_, PyAny>) -> PyResult<Chunk> {
    let column = |name: &str| batch.call_method1("column", (name,));
    let keys = signatures(&column("primary_key_signature")?, "primary_key_signature")?;
    let data = signatures(&column("data_signature")?, "data_signature")?;
    let (flags, _): (ArrayRef, _) = import(&column("flags")?)?;
    whole(&keys, "primary_key_signature")?;
    whole(&data, "data_signature")?;
    whole(&flags, "flags")?;
    let Some(flags) = flags.as_primitive_opt::<arrow_array::types::UInt8Type>() else {
        return Err(PyValueError::new_err(format!("flags must be uint8, not {}", flags.data_type())));
    };
    Ok(Chunk {
        keys: keys.values().slice_with_length(0, keys.len() * 32),
        data: data.values().slice_with_length(0, data.len() * 32),
        flags: flags.values().inner().clone(),
    })
}

fn segment(batches: &[Bound<'_, PyAny>]) -> PyResult<Segment> {
    let chunks = batches.iter().map(chunk).collect::<PyResult<_>>()?;
    Segment::new(chunks).map_err(PyValueError::new_err)
}

impl Lookup {
    pub fn prepare(&self, count: usize, pool: &ThreadPool) -> Result<(), String> {
        self.overlay.prepare(count, pool)?;
        self.base.prepare(count, pool)
    }

    /// Judge records by their signatures; those that are not `signed` have none.
    ///
    /// `tells` says that data signatures are made of the key fields, too: equal ones have equal keys.
    pub fn judge(
        &self,
        (keys, data): (&[Digest], &[Digest]),
        tells: bool,
        signed: impl Fn(usize) -> bool,
        states: &mut [u8],
        positions: &mut [i64],
    ) {
        for (at, (states, positions)) in states.chunks_mut(GROUP).zip(positions.chunks_mut(GROUP)).enumerate()
        {
            let rows = at * GROUP..at * GROUP + states.len();
            let signed = std::array::from_fn(|i| i < states.len() && signed(rows.start + i));
            self.judge_group((&keys[rows.clone()], &data[rows]), tells, signed, states, positions);
        }
    }

    /// Judge one group of at most `GROUP` records.
    fn judge_group(
        &self,
        (keys, data): (&[Digest], &[Digest]),
        tells: bool,
        signed: [bool; GROUP],
        states: &mut [u8],
        positions: &mut [i64],
    ) {
        let mut wanted = signed;
        let mut above = [None; GROUP];
        self.overlay.find(keys, wanted, &mut above);
        for (wanted, above) in wanted.iter_mut().zip(&above) {
            *wanted &= above.is_none();
        }
        let mut below = [None; GROUP];
        if tells {
            self.base.find_unchanged((keys, data), wanted, &mut below);
        }
        for (wanted, below) in wanted.iter_mut().zip(&below) {
            *wanted &= below.is_none();
        }
        if wanted.contains(&true) {
            let mut known = [None; GROUP];
            self.base.find(keys, wanted, &mut known);
            for (below, known) in below.iter_mut().zip(known) {
                *below = below.or(known);
            }
        }
        for (i, (state, position)) in states.iter_mut().zip(positions).enumerate() {
            (*state, *position) = match (above[i], below[i]) {
                _ if !signed[i] => (UNSIGNED, -1),
                (Some(row), _) => verdict(&self.overlay, row, self.base.len(), &data[i]),
                (None, Some(row)) => verdict(&self.base, row, 0, &data[i]),
                (None, None) => (NEW, -1),
            };
        }
    }

    /// The signatures of the entry at a position.
    pub fn entry(&self, position: i64) -> (&Digest, &Digest) {
        let position = position as usize;
        let (segment, row) = match position.checked_sub(self.base.len()) {
            Some(row) => (&self.overlay, row),
            None => (&self.base, position),
        };
        (segment.key(row), segment.entry(row).0)
    }
}

#[inline(always)]
fn verdict(segment: &Segment, row: usize, before: usize, data: &Digest) -> (u8, i64) {
    let (held, flags) = segment.entry(row);
    if flags & DELETED != 0 {
        return (NEW, -1);
    }
    let same = held == data && flags & UNCERTAIN == 0;
    (if same { SAME } else { CHANGED }, (before + row) as i64)
}

#[pymethods]
impl Lookup {
    #[new]
    fn new(base: Vec<Bound<'_, PyAny>>, overlay: Vec<Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self { base: segment(&base)?, overlay: segment(&overlay)? })
    }

    fn probe<'py>(
        &self,
        py: Python<'py>,
        key_signatures: &Bound<'py, PyAny>,
        data_signatures: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let keys = signatures(key_signatures, "the key signatures")?;
        let data = signatures(data_signatures, "the data signatures")?;
        if keys.len() != data.len() {
            return Err(PyValueError::new_err("key and data signatures differ in number"));
        }
        let rows = keys.len();
        let pool = pool().map_err(PyRuntimeError::new_err)?;
        let probe = Probe {
            nulls: NullBuffer::union(keys.nulls(), data.nulls()),
            keys: keys.values().clone(),
            data: data.values().clone(),
        };
        let (states, positions) = py
            .detach(|| {
                self.prepare(rows, &pool)?;
                let mut states = vec![0_u8; rows];
                let mut positions = vec![0_i64; rows];
                let keys = &probe.keys.as_chunks::<32>().0[..rows];
                let data = &probe.data.as_chunks::<32>().0[..rows];
                let task = |at: usize, states: &mut [u8], positions: &mut [i64]| {
                    let first = at * TASK;
                    let part = first..first + states.len();
                    let signed = |row: usize| !probe.is_null(first + row);
                    self.judge((&keys[part.clone()], &data[part]), false, signed, states, positions);
                };
                if rows <= TASK {
                    task(0, &mut states, &mut positions);
                } else {
                    pool.install(|| {
                        states
                            .par_chunks_mut(TASK)
                            .zip(positions.par_chunks_mut(TASK))
                            .enumerate()
                            .for_each(|(at, (states, positions))| task(at, states, positions));
                    });
                }
                Ok((states, positions))
            })
            .map_err(PyValueError::new_err::<String>)?;
        let states = export(py, &UInt8Array::from(states))?;
        Ok((states, export(py, &Int64Array::from(positions))?))
    }

    fn superseded<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pool = pool().map_err(PyRuntimeError::new_err)?;
        let positions = py
            .detach(|| {
                self.base.prepare(self.overlay.len(), &pool)?;
                let keys: Vec<Digest> = self.overlay.keys().copied().collect();
                let mut positions = Vec::new();
                for group in keys.chunks(GROUP) {
                    let mut rows = [None; GROUP];
                    self.base.find(group, [true; GROUP], &mut rows);
                    positions.extend(rows.iter().flatten().map(|row| *row as i64));
                }
                positions.sort_unstable();
                Ok(positions)
            })
            .map_err(PyValueError::new_err::<String>)?;
        export(py, &Int64Array::from(positions))
    }

    /// Get ready for so many more rows; raises `ValueError` if the segments are found to be damaged.
    #[pyo3(name = "prepare")]
    fn get_ready(&self, py: Python<'_>, rows: usize) -> PyResult<()> {
        let pool = pool().map_err(PyRuntimeError::new_err)?;
        py.detach(|| self.prepare(rows, &pool)).map_err(PyValueError::new_err)
    }

    #[getter]
    fn base_rows(&self) -> usize {
        self.base.len()
    }

    #[getter]
    fn overlay_rows(&self) -> usize {
        self.overlay.len()
    }
}
