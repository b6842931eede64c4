//! `sign` and `sign2`: the batch and its fields from Python, the work to the threads, and back.

use arrow_array::FixedSizeBinaryArray;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::cast::AsArray;
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use bytes::Bytes;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::cbor::push_text;
use crate::exchange::{export, import};
use crate::pool::pool;
use crate::rows::{Bad, Field, Plan, Signing, with_worker};
use crate::sha::{Digest, Hasher, Keying, Way};
use crate::slots::Name;
use crate::spare::Recycled;
use crate::tree::build;

/// Rows that one thread signs at a time: many groups, so that sharing them out costs nothing.
const TASK: usize = 2048;

/// (row in the batch, field, reason)
pub type Unsignable = (usize, String, String);

/// The fields of a batch that are to be signed.
pub struct Record {
    pub names: Vec<String>,
    pub fields: Vec<Field>,
    pub rows: usize,
}

/// Import the wanted fields that the batch has, each once, in bytewise order of their encoded names.
pub fn read(batch: &Bound<'_, PyAny>, wanted: &[&[String]]) -> PyResult<Record> {
    let rows: usize = batch.getattr("num_rows")?.extract()?;
    let schema = batch.getattr("schema")?;
    let in_batch: Vec<String> = schema.getattr("names")?.extract()?;
    let mut found: Vec<(Vec<u8>, &String, usize)> = Vec::new();
    for (place, name) in in_batch.iter().enumerate() {
        if wanted.iter().any(|fields| fields.contains(name)) {
            let mut encoded = Vec::new();
            push_text(name, &mut encoded);
            found.push((encoded, name, place));
        }
    }
    found.sort_unstable();
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let name = pair[0].1;
        let message = format!("the field {name:?} occurs more than once; give each field its own name");
        return Err(PyValueError::new_err(message));
    }
    let mut fields = Vec::with_capacity(found.len());
    let mut names = Vec::with_capacity(found.len());
    if !found.is_empty() {
        let places: Vec<usize> = found.iter().map(|(_, _, place)| *place).collect();
        let (columns, shape) = import(&batch.call_method1("select", (places,))?)?;
        for (at, ((encoded, name, _), column)) in found.iter().zip(columns.as_struct().columns()).enumerate()
        {
            let node = shape.child(at).and_then(|shape| build(column, shape, 0)).map_err(|reason| {
                PyValueError::new_err(format!(
                    "the field {name:?} can't be signed, because {reason}; \
                     exclude it, or bring it to a plain type in the source"
                ))
            })?;
            fields.push(Field { name: Name::new(encoded), node });
            names.push((*name).clone());
        }
    }
    Ok(Record { names, fields, rows })
}

/// Sign all rows of `record` once for each of `plans`.
fn sign_all(
    py: Python<'_>,
    record: &Record,
    plans: &[Plan],
    (hasher, wide): (&Hasher, bool),
) -> PyResult<(Vec<Recycled>, Vec<Bad>)> {
    let pool = if record.rows > TASK { Some(pool().map_err(PyRuntimeError::new_err)?) } else { None };
    let signing = Signing { fields: &record.fields, plans, hasher, wide };
    // Every row's signature is written, bad ones' too: what was in the memory doesn't matter. Taken while attached,
    // so that no fork meets the lock held.
    let mut out: Vec<Recycled> =
        plans.iter().map(|_| Recycled::of(record.rows * size_of::<Digest>(), 0)).collect();
    Ok(py.detach(|| {
        // A task is a range of rows and its part of each plan's signatures.
        let mut tasks: Vec<(usize, Vec<&mut [Digest]>)> =
            (0..record.rows).step_by(TASK).map(|first| (first, Vec::new())).collect();
        for signatures in &mut out {
            let (signatures, _) = signatures.room().as_chunks_mut::<{ size_of::<Digest>() }>();
            for (task, part) in tasks.iter_mut().zip(signatures[..record.rows].chunks_mut(TASK)) {
                task.1.push(part);
            }
        }
        let run = |(first, mut parts): (usize, Vec<&mut [Digest]>)| {
            let rows = first..record.rows.min(first + TASK);
            with_worker(|worker| signing.sign(rows, &mut parts, worker))
        };
        let bad: Vec<Vec<Bad>> = match pool {
            None => tasks.into_iter().map(run).collect(),
            Some(pool) => pool.install(|| tasks.into_par_iter().map(run).collect()),
        };
        (out, bad.concat())
    }))
}

/// Signatures as an Arrow array, null where one of the plan's values is bad.
fn signatures<'py>(
    py: Python<'py>,
    digests: Recycled,
    bad: &[Bad],
    plan: &Plan,
) -> PyResult<Bound<'py, PyAny>> {
    let values = Buffer::from(Bytes::from_owner(digests));
    let mut valid = vec![true; if bad.is_empty() { 0 } else { values.len() / size_of::<Digest>() }];
    for bad in bad.iter().filter(|bad| plan.fields.contains(&bad.field)) {
        valid[bad.row] = false;
    }
    let nulls = Some(NullBuffer::new(BooleanBuffer::from(valid))).filter(|nulls| nulls.null_count() > 0);
    export(py, &FixedSizeBinaryArray::new(32, values, nulls))
}

/// The bad values for Python, in order of rows, then names.
pub fn unsignable(bad: &[Bad], names: &[String]) -> Vec<Unsignable> {
    let mut found: Vec<Unsignable> =
        bad.iter().map(|bad| (bad.row, names[bad.field].clone(), bad.reason.to_owned())).collect();
    found.sort_unstable();
    found
}

pub fn plan(record: &Record, fields: &[String]) -> Plan {
    let fields = (0..record.names.len()).filter(|at| fields.contains(&record.names[*at])).collect();
    Plan { fields }
}

/// Turn a panic, which is what reading out of a buffer ends in here, into an error of Python's.
pub fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(PyValueError::new_err(
            "the batch is damaged: its offsets or sizes lead out of its buffers; read it anew",
        ))
    })
}

#[pyfunction]
#[pyo3(signature = (batch, fields, key=None))]
pub fn sign<'py>(
    py: Python<'py>,
    batch: &Bound<'py, PyAny>,
    fields: Vec<String>,
    key: Option<&[u8]>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Unsignable>)> {
    sign_once(py, batch, &fields, (&Hasher::new(Keying::new(key)), true))
}

/// The same in the instructions that all processors of this kind have, for comparison.
#[pyfunction]
#[pyo3(signature = (batch, fields, key=None))]
pub fn _sign_plain<'py>(
    py: Python<'py>,
    batch: &Bound<'py, PyAny>,
    fields: Vec<String>,
    key: Option<&[u8]>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Unsignable>)> {
    sign_once(py, batch, &fields, (&Hasher::by(Way::Plain, Keying::new(key)), false))
}

fn sign_once<'py>(
    py: Python<'py>,
    batch: &Bound<'py, PyAny>,
    fields: &[String],
    by: (&Hasher, bool),
) -> PyResult<(Bound<'py, PyAny>, Vec<Unsignable>)> {
    let (record, plans, (mut digests, bad)) = guarded(|| {
        let record = read(batch, &[fields])?;
        let plans = [plan(&record, fields)];
        let signed = sign_all(py, &record, &plans, by)?;
        Ok((record, plans, signed))
    })?;
    let digests = digests.swap_remove(0);
    Ok((signatures(py, digests, &bad, &plans[0])?, unsignable(&bad, &record.names)))
}

#[pyfunction]
#[pyo3(signature = (batch, key_fields, data_fields, key=None))]
pub fn sign2<'py>(
    py: Python<'py>,
    batch: &Bound<'py, PyAny>,
    key_fields: Vec<String>,
    data_fields: Vec<String>,
    key: Option<&[u8]>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>, Vec<Unsignable>)> {
    let (record, plans, (mut digests, bad)) = guarded(|| {
        let record = read(batch, &[&key_fields, &data_fields])?;
        let plans = [plan(&record, &key_fields), plan(&record, &data_fields)];
        let signed = sign_all(py, &record, &plans, (&Hasher::new(Keying::new(key)), true))?;
        Ok((record, plans, signed))
    })?;
    let data = signatures(py, digests.swap_remove(1), &bad, &plans[1])?;
    let keys = signatures(py, digests.swap_remove(0), &bad, &plans[0])?;
    Ok((keys, data, unsignable(&bad, &record.names)))
}
