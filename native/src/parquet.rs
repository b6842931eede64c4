//! `ParquetReader`: the record batches of a Parquet file in order, its columns decoded side by side.

use std::collections::VecDeque;
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
    RowSelection, RowSelector,
};
use parquet::file::metadata::ParquetMetaData;
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

/// Bytes of a column in one batch from which on its pages are small beside the batch: writers make them of 1 MB.
const HEAVY: i64 = 4 << 20;

/// The readers of one column: one, or one for each lane, which then reads every so many-th batch.
type Readers = Vec<ParquetRecordBatchReader>;

/// The columns of a file, all at the same row. A column that weighs as much as a core's share of them all
/// would be waited for: it is decoded in several lanes, side by side with itself.
struct Columns {
    schema: SchemaRef,
    lanes: usize,
    readers: Vec<Readers>,
    ready: VecDeque<Decoded>,
}

impl Columns {
    fn open(path: &Path, schema: Schema, rows: usize, threads: usize) -> Result<Self, String> {
        let say = |error: parquet::errors::ParquetError| error.to_string();
        let source = Source::open(path).map_err(|error| error.to_string())?;
        let schema = Arc::new(schema);
        let decoded = Schema::new(schema.fields().iter().map(as_decoded).collect::<Vec<_>>());
        // The types are the caller's, so that what a file says of Arrow's types can't contradict them.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(decoded));
        let metadata = ArrowReaderMetadata::load(&source, options).map_err(say)?;
        let heavy = heavy(metadata.metadata(), rows, threads);
        let lanes = if heavy.contains(&true) { threads } else { 1 };
        let open = |column, lane: Option<usize>| {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), [column]);
            let mut builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(source.clone(), metadata.clone())
                    .with_projection(mask)
                    .with_batch_size(rows);
            if let Some(lane) = lane {
                builder = builder.with_row_selection(of_lane(metadata.metadata(), rows, lane, lanes));
            }
            builder.build().map_err(say)
        };
        let readers = (0..schema.fields().len())
            .map(|column| match heavy.get(column) {
                Some(true) => (0..lanes).map(|lane| open(column, Some(lane))).collect(),
                _ => open(column, None).map(|reader| vec![reader]),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { schema, lanes, readers, ready: VecDeque::new() })
    }

    /// Decode the next rows of all columns; None at the end of the file.
    fn next(&mut self, pool: &ThreadPool) -> Option<Decoded> {
        if self.ready.is_empty() {
            self.decode(pool);
        }
        self.ready.pop_front()
    }

    /// Decode one batch for each lane.
    fn decode(&mut self, pool: &ThreadPool) {
        let lanes = self.lanes;
        let mut columns: Vec<Vec<Part>> = pool.install(|| {
            self.readers
                .par_iter_mut()
                .zip(self.schema.fields().par_iter())
                .with_max_len(1)
                .map(|(readers, field)| match readers.as_mut_slice() {
                    [reader] => (0..lanes).map(|_| part(reader, field)).collect(),
                    readers => {
                        readers.par_iter_mut().with_max_len(1).map(|reader| part(reader, field)).collect()
                    }
                })
                .collect()
        });
        for lane in 0..lanes {
            let parts: Vec<Part> = columns.iter_mut().map(|parts| parts[lane].take()).collect();
            if parts.iter().all(Option::is_none) {
                return;
            }
            let parts = parts
                .into_iter()
                .map(|part| part.unwrap_or_else(|| Err("its columns differ in length".to_owned())))
                .collect::<Result<Vec<_>, _>>();
            self.ready.push_back(parts.and_then(|parts| {
                RecordBatch::try_new(Arc::clone(&self.schema), parts).map_err(|error| error.to_string())
            }));
        }
    }
}

/// A column of a batch; None behind the end.
type Part = Option<Result<ArrayRef, String>>;

fn part(reader: &mut ParquetRecordBatchReader, field: &FieldRef) -> Part {
    let part = reader.next()?.map_err(|error| error.to_string());
    Some(part.and_then(|part| side_by_side(part.column(0), field.data_type())))
}

/// Which columns are as much as a core's share of all, and long in a batch of `rows`.
fn heavy(metadata: &ParquetMetaData, rows: usize, threads: usize) -> Vec<bool> {
    let groups = metadata.row_groups();
    let all = groups.iter().map(|group| group.num_rows()).sum::<i64>().max(1);
    let columns = groups.first().map_or(0, |group| group.num_columns());
    let weights: Vec<i64> = (0..columns)
        .map(|at| groups.iter().map(|group| group.column(at).uncompressed_size()).sum())
        .collect();
    let share = weights.iter().sum::<i64>() / threads as i64;
    let enough = |weight: i64| weight / all.div_euclid(rows as i64).max(1) >= HEAVY;
    weights.iter().map(|weight| threads > 1 && *weight > share && enough(*weight)).collect()
}

/// The rows of every `lanes`-th batch, from that of the number `lane` on.
fn of_lane(metadata: &ParquetMetaData, rows: usize, lane: usize, lanes: usize) -> RowSelection {
    let all = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let batches = (0..all).step_by(rows).enumerate();
    batches
        .map(|(number, first)| RowSelector { row_count: rows.min(all - first), skip: number % lanes != lane })
        .collect()
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
            .detach(|| guarded(|| Columns::open(&path, schema, rows.max(1), pool.current_num_threads())))
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
