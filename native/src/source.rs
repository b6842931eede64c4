//! Where Parquet files are read from: positioned reads, which threads share without a lock.

use std::fs::File;
use std::io::{BufReader, Read, Result as IoResult};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use crate::spare::Recycled;

/// An open file. A file's own cursor would be shared by all its duplicates: none is used here.
///
/// It is read and not mapped: a file that is cut short while it is mapped brings the process down.
#[derive(Clone)]
pub struct Source {
    file: Arc<File>,
    length: u64,
}

impl Source {
    pub fn open(path: &Path) -> IoResult<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), length })
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

/// Reads on from a place of a file.
pub struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl ChunkReader for Source {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(From { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.length);
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} lead out of the file")));
        }
        let mut buffer = Recycled::of(length, 0);
        self.file.read_exact_at(&mut buffer.room()[..length], start)?;
        Ok(Bytes::from_owner(buffer))
    }
}
