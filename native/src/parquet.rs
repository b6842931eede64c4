//! `ParquetReader`: the record batches of a Parquet file in order, its columns decoded side by side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::exchange::{export, import_schema};
use crate::pool::pool;
use crate::side_by_side::{side_by_side, views_of};
use crate::source::Source;

/// Decoded batches that wait for their taker.
const AHEAD: usize = 2;

/// What the decoding thread hands over; an error is the last thing it says.
type Decoded = Result<RecordBatch, String>;

/// One reader for each column, all at the same row.
struct Columns {
    schema: SchemaRef,
    readers: Vec<ParquetRecordBatchReader>,
}

impl Columns {
    fn open(path: &Path, schema: Schema, rows: usize) -> Result<Self, String> {
        let say = |error: parquet::errors::ParquetError| error.to_string();
        let source = Source::open(path).map_err(|error| error.to_string())?;
        let schema = Arc::new(schema);
        let decoded = Schema::new(schema.fields().iter().map(as_decoded).collect::<Vec<_>>());
        // The types are the caller's, so that what a file says of Arrow's types can't contradict them.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(decoded));
        let metadata = ArrowReaderMetadata::load(&source, options).map_err(say)?;
        let readers = (0..schema.fields().len())
            .map(|column| {
                let mask = ProjectionMask::roots(metadata.parquet_schema(), [column]);
                ParquetRecordBatchReaderBuilder::new_with_metadata(source.clone(), metadata.clone())
                    .with_projection(mask)
                    .with_batch_size(rows)
                    .build()
                    .map_err(say)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { schema, readers })
    }

    /// Decode the next rows of all columns; None at the end of the file.
    fn next(&mut self, pool: &ThreadPool) -> Option<Decoded> {
        let parts: Vec<Option<Result<ArrayRef, String>>> = pool.install(|| {
            self.readers
                .par_iter_mut()
                .zip(self.schema.fields().par_iter())
                .with_max_len(1)
                .map(|(reader, field)| {
                    let part = reader.next()?.map_err(|error| error.to_string());
                    Some(part.and_then(|part| side_by_side(part.column(0), field.data_type())))
                })
                .collect()
        });
        if parts.iter().all(Option::is_none) {
            return None;
        }
        let columns = parts
            .into_iter()
            .map(|part| part.unwrap_or_else(|| Err("its columns differ in length".to_owned())))
            .collect::<Result<Vec<_>, _>>();
        Some(columns.and_then(|columns| {
            RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| error.to_string())
        }))
    }
}

/// A field as the decoder is asked for it: views of texts and bytes.
fn as_decoded(field: &FieldRef) -> FieldRef {
    match views_of(field.data_type()) {
        Some(views) => Arc::new(Field::clone(field).with_data_type(views)),
        None => Arc::clone(field),
    }
}

/// The batches of a file, decoded ahead of their taker by threads of the core.
#[pyclass(frozen, module = "rundiff._native")]
pub struct ParquetReader {
    decoded: Mutex<Receiver<Decoded>>,
}

#[pymethods]
impl ParquetReader {
    /// Open a file whose columns, all of them flat, have the types of `schema`.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, schema: &Bound<'_, PyAny>, rows: usize) -> PyResult<Self> {
        let schema = import_schema(schema)?;
        let pool = pool().map_err(PyRuntimeError::new_err)?;
        let mut columns = py
            .detach(|| guarded(|| Columns::open(&path, schema, rows.max(1))))
            .map_err(PyValueError::new_err)?;
        let (sender, receiver) = sync_channel(AHEAD);
        let work = move || {
            while let Some(batch) = guarded(|| Ok(columns.next(&pool))).unwrap_or_else(|said| Some(Err(said)))
            {
                let failed = batch.is_err();
                // Nobody takes them any more, or there is nothing sound to follow.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        Builder::new()
            .name("rundiff-parquet".to_owned())
            .spawn(work)
            .map_err(|error| PyRuntimeError::new_err(format!("a thread can't be started ({error})")))?;
        Ok(Self { decoded: Mutex::new(receiver) })
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// The next rows as a struct array; raises `ValueError` where the file can't be decoded.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = py.detach(|| self.decoded.lock().unwrap_or_else(PoisonError::into_inner).recv());
        match next {
            Err(_) => Ok(None),
            Ok(Err(said)) => Err(PyValueError::new_err(said)),
            Ok(Ok(batch)) => export(py, &StructArray::from(batch)).map(Some),
        }
    }
}

/// Turn a panic over a damaged file into a sentence.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the file is damaged".to_owned()))
}
