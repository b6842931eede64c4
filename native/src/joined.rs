//! `JoinedParquet`: the row groups of several Parquet files as one file, their pages as they are.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

type Writer = SerializedFileWriter<Vec<u8>>;

/// A Parquet file that is put together of others, all of one schema; what belongs to it is handed out as it grows.
#[pyclass(frozen, module = "rundiff._native")]
pub struct JoinedParquet {
    writer: Mutex<Option<Writer>>,
}

#[pymethods]
impl JoinedParquet {
    #[new]
    fn new() -> Self {
        Self { writer: Mutex::new(None) }
    }

    /// Take over the row groups of a whole file, and give the bytes to be written next. The first file says what
    /// the schema and its metadata are. Raises `ValueError` where a file can't be read.
    fn append<'py>(&self, py: Python<'py>, file: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| {
            let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            append(&mut slot, Bytes::from_owner(file))
        });
        Ok(PyBytes::new(py, &bytes.map_err(|error| PyValueError::new_err(error.to_string()))?))
    }

    /// Give the footer, the last bytes of the file; nothing can follow. Raises `ValueError` if nothing was appended.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = writer.ok_or_else(|| PyValueError::new_err("no file was appended"))?;
        let bytes = writer.into_inner().map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
    }
}

fn append(slot: &mut Option<Writer>, file: Bytes) -> Result<Vec<u8>> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
    let writer = match slot {
        Some(writer) => writer,
        None => slot.insert(begun(&metadata)?),
    };
    for group in metadata.row_groups() {
        let mut joined = writer.next_row_group()?;
        for column in group.columns() {
            let close = ColumnCloseResult {
                bytes_written: column.compressed_size().unsigned_abs(),
                rows_written: group.num_rows().unsigned_abs(),
                metadata: column.clone(),
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            };
            joined.append_column(&file, close)?;
        }
        joined.close()?;
    }
    writer.flush()?;
    Ok(take(writer.inner_mut()))
}

/// Begin a file like the first one: its schema, its metadata, and who encoded its pages.
fn begun(first: &ParquetMetaData) -> Result<Writer> {
    let file = first.file_metadata();
    let version = if file.version() < 2 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
    let mut properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_key_value_metadata(file.key_value_metadata().cloned());
    if let Some(encoder) = file.created_by() {
        properties = properties.set_created_by(encoder.to_owned());
    }
    SerializedFileWriter::new(Vec::new(), file.schema_descr().root_schema_ptr(), Arc::new(properties.build()))
}
