//! `find_records`: the records of some signatures in a Parquet file that is sorted by signature.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelectionPolicy,
};
use parquet::basic::Type;
use parquet::file::metadata::ColumnChunkMetaData;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::exchange::{export, import};
use crate::picking::{Pages, pick};
use crate::pool::pool;
use crate::segment::prefix;
use crate::sha::Digest;
use crate::source::Source;

/// The column that a file is sorted by.
const KEY: &str = "primary_key_signature";

/// What a file is refused with that is no log.
const NO_KEYS: &str = "primary_key_signature is no column of signatures that can be read";

/// Which of the wanted signatures a row group has, and the records of those.
type Found = (Vec<i64>, ArrayRef);

/// A file, and the columns that are read of it.
struct Log {
    source: Source,
    metadata: ArrowReaderMetadata,
    key: usize,
    wanted_column: usize,
}

impl Log {
    fn open(path: &Path, column: &str) -> Result<Self, String> {
        let source = Source::open(path).map_err(|error| error.to_string())?;
        let metadata = ArrowReaderMetadata::load(&source, ArrowReaderOptions::new())
            .map_err(|error| error.to_string())?;
        let place = |name: &str| metadata.schema().index_of(name).map_err(|error| error.to_string());
        let (key, wanted_column) = (place(KEY)?, place(column)?);
        Ok(Self { key, wanted_column, source, metadata })
    }

    fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn rows(&self, group: usize) -> usize {
        self.metadata.metadata().row_group(group).num_rows() as usize
    }

    fn column(&self, group: usize, column: usize) -> ParquetRecordBatchReaderBuilder<Source> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [column]);
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.source.clone(), self.metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
    }

    /// The leaf columns below one column of the schema, in a row group.
    fn leaves(&self, group: usize, column: usize) -> impl Iterator<Item = &ColumnChunkMetaData> {
        let schema = self.metadata.parquet_schema();
        let chunks = self.metadata.metadata().row_group(group).columns();
        chunks
            .iter()
            .enumerate()
            .filter(move |(at, _)| schema.get_column_root_idx(*at) == column)
            .map(|(_, c)| c)
    }

    /// Give which of the wanted signatures a row group has, and the rows of those.
    fn search(&self, group: usize, wanted: &[Digest]) -> Result<(Vec<i64>, Vec<usize>), String> {
        let total = self.rows(group);
        let keys = self.leaves(group, self.key).next().filter(|keys| {
            let column = keys.column_descr();
            column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY && column.type_length() == 32
        });
        let mut pages = keys.and_then(|keys| Pages::open(&self.source, keys, total)).ok_or(NO_KEYS)?;
        let (mut hits, mut rows) = (Vec::new(), Vec::new());
        let mut near = self.overlap(group, wanted).peekable();
        let mut before = 0;
        while near.peek().is_some() {
            let Some(page) = pages.next().ok_or(NO_KEYS)? else { break };
            let keys = page.values.as_chunks::<32>().0;
            if !page.is_whole() || keys.len() != page.rows {
                return Err(NO_KEYS.to_owned());
            }
            let Some(last) = keys.last() else { continue };
            let mut from = 0;
            while let Some(at) = near.next_if(|at| wanted[*at] <= *last) {
                from += gallop(&keys[from..], &wanted[at]);
                if keys.get(from) == Some(&wanted[at]) {
                    hits.push(at as i64);
                    rows.push(before + from);
                }
            }
            before += keys.len();
        }
        Ok((hits, rows))
    }

    /// Pick the records of ascending rows out of the pages of a row group; None where that takes a whole reader.
    fn pick(&self, group: usize, rows: &[usize]) -> Option<ArrayRef> {
        let field = self.metadata.schema().field(self.wanted_column);
        let DataType::Struct(fields) = field.data_type() else { return None };
        let leaves: Vec<_> = self.leaves(group, self.wanted_column).collect();
        // Only flat fields have one leaf each.
        if fields.is_empty() || leaves.len() != fields.len() {
            return None;
        }
        let mut records = None;
        let mut columns = Vec::with_capacity(fields.len());
        for (field, leaf) in fields.iter().zip(leaves) {
            let picked = pick(&self.source, leaf, field.data_type(), rows, self.rows(group))?;
            if records.is_none() {
                records = Some(picked.levels);
            }
            columns.push(picked.values);
        }
        let nulls =
            field.is_nullable().then(|| records.into_iter().flatten().map(|level| level > 0).collect());
        let nulls = nulls.filter(|nulls: &NullBuffer| nulls.null_count() > 0);
        StructArray::try_new(fields.clone(), columns, nulls).ok().map(|records| Arc::new(records) as ArrayRef)
    }

    /// Read the selected records of a row group.
    fn read(&self, group: usize, rows: RowSelection) -> Result<ArrayRef, String> {
        // Few rows, one by one: skipping the others was measured to take two thirds of decoding all of them.
        let mut reader = self
            .column(group, self.wanted_column)
            .with_batch_size(self.rows(group).max(1))
            .with_row_selection(rows)
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .build()
            .map_err(|error| error.to_string())?;
        let batch: RecordBatch = match reader.next() {
            Some(batch) => batch.map_err(|error| error.to_string())?,
            None => return Err("a row group has fewer rows than it states".to_owned()),
        };
        match reader.next() {
            None => Ok(Arc::clone(batch.column(0))),
            Some(_) => Err("a row group was not read at once".to_owned()),
        }
    }

    /// Find signatures in one row group; None if it has none of them.
    fn find(&self, group: usize, wanted: &[Digest]) -> Result<Option<Found>, String> {
        let (hits, rows) = self.search(group, wanted)?;
        if hits.is_empty() {
            return Ok(None);
        }
        let records = match self.pick(group, &rows) {
            Some(records) => records,
            None => {
                let ranges = rows.into_iter().map(|row| row..row + 1);
                self.read(group, RowSelection::from_consecutive_ranges(ranges, self.rows(group)))?
            }
        };
        if records.len() != hits.len() {
            return Err("a row group gave another number of records than were asked for".to_owned());
        }
        Ok(Some((hits, records)))
    }

    /// The wanted signatures between the least and the greatest of a row group, as its statistics tell.
    fn overlap(&self, group: usize, wanted: &[Digest]) -> Range<usize> {
        let column = self.metadata.metadata().row_group(group).columns().get(self.key);
        let bounds = column.and_then(|column| column.statistics());
        let least = bounds.and_then(|bounds| bounds.min_bytes_opt());
        let most = bounds.and_then(|bounds| bounds.max_bytes_opt());
        let (Some(least), Some(most)) = (least, most) else { return 0..wanted.len() };
        // Bounds may be cut short; a beginning sorts before the whole.
        let start = wanted.partition_point(|key| key.as_slice() < least);
        let end = wanted.partition_point(|key| &key[..most.len().min(32)] <= most);
        start..end.max(start)
    }
}

/// Count the keys below a wanted one, which is not far: double the step, then halve.
fn gallop(keys: &[Digest], wanted: &Digest) -> usize {
    let below = |key: &Digest| {
        let (first, last) = (prefix(key), prefix(wanted));
        first < last || (first == last && key < wanted)
    };
    let mut end = 1;
    while end < keys.len() && below(&keys[end]) {
        end *= 2;
    }
    let start = end / 2;
    start + keys[start..keys.len().min(end)].partition_point(below)
}

/// Find the records of ascending signatures, row group by row group: lists of (which of the signatures,
/// their values of `column`). Raises `ValueError` where the file can't be read.
#[pyfunction]
pub fn find_records<'py>(
    py: Python<'py>,
    path: PathBuf,
    column: &str,
    signatures: &Bound<'py, PyAny>,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let (array, _) = import(signatures)?;
    if *array.data_type() != DataType::FixedSizeBinary(32) || array.null_count() > 0 {
        return Err(PyValueError::new_err("signatures must be fixed_size_binary[32] without nulls"));
    }
    let signatures = array.as_fixed_size_binary();
    let wanted = &signatures.values().as_chunks::<32>().0[..signatures.len()];
    let pool = pool().map_err(PyRuntimeError::new_err)?;
    let work = || {
        if !wanted.is_sorted() {
            return Err("signatures must ascend".to_owned());
        }
        let log = Log::open(&path, column)?;
        let found: Result<Vec<_>, String> = pool.install(|| {
            (0..log.groups()).into_par_iter().with_max_len(1).map(|group| log.find(group, wanted)).collect()
        });
        found
    };
    let found = py
        .detach(|| catch_unwind(AssertUnwindSafe(work)))
        .unwrap_or_else(|_| Err("the file is damaged".to_owned()))
        .map_err(PyValueError::new_err)?;
    found
        .into_iter()
        .flatten()
        .map(|(hits, records)| Ok((export(py, &Int64Array::from(hits))?, export(py, &records)?)))
        .collect()
}
