//! `JoinedParquet`: the row groups of several Parquet files as one file, their pages as they are.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use arrow_buffer::Buffer;
use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::exchange::import;

type Writer = SerializedFileWriter<Vec<u8>>;

/// A whole file in memory that is someone else's.
struct Held(Buffer);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

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

    /// Take over the row groups of a whole file, given as an Arrow array of uint8, and give the bytes to be written
    /// next. The first file says what the schema and its metadata are. Raises `ValueError` where a file can't be read.
    fn append<'py>(&self, py: Python<'py>, file: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let (array, _) = import(file)?;
        let bytes = array
            .as_primitive_opt::<UInt8Type>()
            .ok_or_else(|| PyValueError::new_err("the file must be an array of uint8"))?;
        let file = Bytes::from_owner(Held(bytes.values().inner().clone()));
        let begun = self.take();
        let mut writer =
            py.detach(|| append(begun, &file)).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let grown = PyBytes::new(py, writer.inner());
        // Memory that was used is not cleared by the system once more.
        writer.inner_mut().clear();
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok(grown)
    }

    /// Give the footer, the last bytes of the file; nothing can follow. Raises `ValueError` if nothing was appended.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let writer = self.take().ok_or_else(|| PyValueError::new_err("no file was appended"))?;
        let bytes = writer.into_inner().map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
    }
}

impl JoinedParquet {
    /// Take the writer; after an error there is none any more.
    fn take(&self) -> Option<Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn append(writer: Option<Writer>, file: &Bytes) -> Result<Writer> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file)?;
    let mut writer = writer.map_or_else(|| begun(&metadata), Ok)?;
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
            joined.append_column(file, close)?;
        }
        joined.close()?;
    }
    writer.flush()?;
    Ok(writer)
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
