//! `examine`: a batch signed and looked up in one go, and `Seen`: what a run has met of its baseline.

use std::sync::{Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{FixedSizeBinaryArray, Int64Array, UInt8Array};
use arrow_buffer::Buffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::exchange::{export, import};
use crate::lookup::{CHANGED, Lookup, NEW, SAME};
use crate::rows::{Bad, Signing, with_worker};
use crate::segment::prefetch;
use crate::sha::{Digest, Hasher, Keying};
use crate::sign::{Unsignable, guarded, plan, read, unsignable};

/// Rows that are signed, then looked up, while their signatures are in the processor's cache.
const BLOCK: usize = 2048;

/// What a baseline says of a batch's rows.
///
/// Unchanged rows have the signatures of their entries: only those of the others are kept.
#[pyclass(frozen, module = "rundiff._native")]
pub struct Examined {
    lookup: Py<Lookup>,
    states: Vec<u8>,
    positions: Vec<i64>,
    others: Vec<(Digest, Digest)>,
    unsignable: Vec<Unsignable>,
}

#[pymethods]
impl Examined {
    /// The rows that have no signature: (row, field, reason). Nothing else is to be used if there are any.
    #[getter]
    fn unsignable(&self) -> Vec<Unsignable> {
        self.unsignable.clone()
    }

    /// The rows that a run keeps for sure, ascending: all but unchanged ones.
    fn others<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let rows = self.states.iter().enumerate().filter(|(_, state)| **state != SAME);
        export(py, &rows.map(|(row, _)| row as i64).collect::<Int64Array>())
    }

    fn __len__(&self) -> usize {
        self.states.len()
    }
}

/// Sign the rows of a batch twice, over the key fields and over the compared ones, and look them up.
///
/// Works on the calling thread alone: batches are examined side by side.
#[pyfunction]
#[pyo3(signature = (lookup, batch, key_fields, data_fields, key=None))]
pub fn examine(
    lookup: &Bound<'_, Lookup>,
    batch: &Bound<'_, PyAny>,
    key_fields: Vec<String>,
    data_fields: Vec<String>,
    key: Option<&[u8]>,
) -> PyResult<Examined> {
    guarded(|| {
        let record = read(batch, &[&key_fields, &data_fields])?;
        let plans = [plan(&record, &key_fields), plan(&record, &data_fields)];
        let hasher = Hasher::new(Keying::new(key));
        let signing = Signing { fields: &record.fields, plans: &plans, hasher: &hasher, wide: true };
        let held = lookup.get();
        let tells = plans[0].fields.iter().all(|field| plans[1].fields.contains(field));
        let rows = record.rows;
        let mut states = vec![0; rows];
        let mut positions = vec![0; rows];
        let mut others = Vec::new();
        let mut bad: Vec<Bad> = Vec::new();
        let work = || {
            let mut keys = vec![[0; 32]; rows.min(BLOCK)];
            let mut data = keys.clone();
            with_worker(|worker| {
                for first in (0..rows).step_by(BLOCK) {
                    let block = first..rows.min(first + BLOCK);
                    let (keys, data) = (&mut keys[..block.len()], &mut data[..block.len()]);
                    bad.append(&mut signing.sign(block.clone(), &mut [&mut *keys, &mut *data], worker));
                    let (states, positions) = (&mut states[block.clone()], &mut positions[block]);
                    held.judge((&*keys, &*data), tells, |_| true, states, positions);
                    let unlike = states.iter().enumerate().filter(|(_, state)| **state != SAME);
                    others.extend(unlike.map(|(row, _)| (keys[row], data[row])));
                }
            });
        };
        lookup.py().detach(work);
        let unsignable = unsignable(&bad, &record.names);
        Ok(Examined { lookup: lookup.clone().unbind(), states, positions, others, unsignable })
    })
}

/// What is known of a position, two bits of a word: it was read with the same data in a record that was
/// not kept, and it was read with other data.
const IMPLIED: u64 = 1;
const DIFFERS: u64 = 2;
const PLACES: usize = u64::BITS as usize / 2;

/// Marks are asked for so many rows before they are read.
const AHEAD: usize = 48;

/// Marks by baseline position: as few bytes as possible, since each record's lies elsewhere in memory.
#[pyclass(frozen, module = "rundiff._native")]
pub struct Seen(Mutex<Marks>);

struct Marks {
    positions: usize,
    /// `IMPLIED` and `DIFFERS` of each position.
    pairs: Vec<u64>,
    /// One bit for each position that was read otherwise than `IMPLIED` says.
    read: Vec<u64>,
    dropped_duplicates: u64,
}

impl Seen {
    fn marks(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told<'py>(&self, py: Python<'py>, of: fn(&Marks) -> Vec<u8>) -> PyResult<Bound<'py, PyAny>> {
        let values = py.detach(|| of(&self.marks()));
        export(py, &UInt8Array::from(values))
    }
}

impl Marks {
    fn new(positions: usize) -> Self {
        let pairs = vec![0; positions.div_ceil(PLACES)];
        let read = vec![0; positions.div_ceil(u64::BITS as usize)];
        Self { positions, pairs, read, dropped_duplicates: 0 }
    }

    /// Note a batch; say which of its rows must be kept (see `rundiff.compare.seen`).
    fn take(&mut self, states: &[u8], positions: &[i64], keep_all: bool) -> Result<Vec<usize>, String> {
        // Whether an unchanged row is kept depends on the changed ones of the whole batch: these go first.
        for (state, position) in states.iter().zip(positions) {
            if *state != NEW && (*state != SAME || keep_all) {
                let at = self.at(*position)?;
                self.mark_read(at);
                if *state == CHANGED {
                    self.pairs[at / PLACES] |= DIFFERS << (at % PLACES * 2);
                }
            }
        }
        if keep_all {
            return Ok((0..states.len()).collect());
        }
        let mut kept = Vec::new();
        let mut repeated = 0;
        for (row, (state, position)) in states.iter().zip(positions).enumerate() {
            if let Some(later) = positions.get(row + AHEAD)
                && let Some(pair) = self.pairs.get(*later as usize / PLACES)
            {
                prefetch(pair);
            }
            if *state == SAME {
                let at = self.at(*position)?;
                let (pair, shift) = (&mut self.pairs[at / PLACES], at % PLACES * 2);
                if *pair >> shift & DIFFERS == 0 {
                    repeated += *pair >> shift & IMPLIED;
                    *pair |= IMPLIED << shift;
                    continue;
                }
                self.mark_read(at);
            }
            kept.push(row);
        }
        self.dropped_duplicates += repeated;
        Ok(kept)
    }

    #[inline(always)]
    fn at(&self, position: i64) -> Result<usize, String> {
        let at = usize::try_from(position).ok().filter(|at| *at < self.positions);
        at.ok_or_else(|| "a position leads out of the baseline".to_owned())
    }

    fn mark_read(&mut self, at: usize) {
        self.read[at / u64::BITS as usize] |= 1 << (at % u64::BITS as usize);
    }

    /// `IMPLIED` of each position.
    fn implied(&self) -> Vec<u8> {
        let mut values = vec![0; self.positions];
        for (pairs, values) in self.pairs.iter().zip(values.chunks_mut(PLACES)) {
            for (place, value) in values.iter_mut().enumerate() {
                *value = (pairs >> (place * 2) & IMPLIED) as u8;
            }
        }
        values
    }

    /// Of each position, whether it was read in any way.
    fn any(&self) -> Vec<u8> {
        let mut values = self.implied();
        for (read, values) in self.read.iter().zip(values.chunks_mut(u64::BITS as usize)) {
            if *read != 0 {
                for (place, value) in values.iter_mut().enumerate() {
                    *value |= (read >> place & 1) as u8;
                }
            }
        }
        values
    }
}

/// What a run keeps of a batch: rows, both signatures, states, positions.
type Kept<'py> =
    (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

#[pymethods]
impl Seen {
    #[new]
    fn new(positions: usize) -> Self {
        Self(Mutex::new(Marks::new(positions)))
    }

    /// Note a batch, in order of reading; give the rows that must be kept.
    fn take<'py>(&self, py: Python<'py>, examined: &Examined) -> PyResult<Kept<'py>> {
        let lookup = examined.lookup.get();
        let (states, positions) = (&examined.states, &examined.positions);
        let (rows, keys, data) = py
            .detach(|| {
                let kept = self.marks().take(states, positions, false)?;
                let (mut keys, mut data) = (Vec::with_capacity(kept.len()), Vec::with_capacity(kept.len()));
                let mut others = examined.others.iter();
                for row in &kept {
                    // All rows but unchanged ones are kept, so `others` goes along with them.
                    let (key, datum) = match states[*row] {
                        SAME => lookup.entry(positions[*row]),
                        _ => {
                            others.next().map(|(key, datum)| (key, datum)).ok_or("signatures are missing")?
                        }
                    };
                    keys.push(*key);
                    data.push(*datum);
                }
                Ok((kept, keys, data))
            })
            .map_err(PyValueError::new_err::<String>)?;
        let signatures = |digests: Vec<Digest>| {
            FixedSizeBinaryArray::new(32, Buffer::from_vec(digests.into_flattened()), None)
        };
        Ok((
            export(py, &rows.iter().map(|row| *row as i64).collect::<Int64Array>())?,
            export(py, &signatures(keys))?,
            export(py, &signatures(data))?,
            export(py, &rows.iter().map(|row| states[*row]).collect::<UInt8Array>())?,
            export(py, &rows.iter().map(|row| positions[*row]).collect::<Int64Array>())?,
        ))
    }

    /// The same for states and positions in arrays.
    fn note<'py>(
        &self,
        py: Python<'py>,
        states: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        keep_all: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (states, _) = import(states)?;
        let (positions, _) = import(positions)?;
        let states = states.as_primitive_opt::<UInt8Type>();
        let positions = positions.as_primitive_opt::<Int64Type>();
        let (Some(states), Some(positions)) = (states, positions) else {
            return Err(PyValueError::new_err("states must be uint8, and positions int64"));
        };
        if states.len() != positions.len() {
            return Err(PyValueError::new_err("states and positions differ in number"));
        }
        let rows = py
            .detach(|| self.marks().take(states.values(), positions.values(), keep_all))
            .map_err(PyValueError::new_err)?;
        export(py, &rows.iter().map(|row| *row as i64).collect::<Int64Array>())
    }

    /// By position, 1 where the key was read in any way.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.told(py, Marks::any)
    }

    /// By position, 1 where the key was read with the same data, in a record that was not kept.
    fn implied<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.told(py, Marks::implied)
    }

    /// Records that were not kept and repeat another such record of their key.
    #[getter]
    fn dropped_duplicates(&self) -> u64 {
        self.marks().dropped_duplicates
    }
}
