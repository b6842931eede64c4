//! Arrays in and out through the Arrow PyCapsule interface, without copies.

use std::ptr::NonNull;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use arrow_array::{Array, ArrayRef, make_array};
use arrow_schema::Schema;
use pyo3::exceptions::PyValueError;
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// The extension types in a schema, which the types of arrays don't tell.
#[derive(Debug, Default)]
pub struct Shape {
    pub extension: Option<String>,
    children: Vec<Shape>,
    dictionary: Option<Box<Shape>>,
}

impl Shape {
    fn read(schema: &FFI_ArrowSchema) -> Result<Self, String> {
        let metadata = schema.metadata().map_err(|error| error.to_string())?;
        Ok(Self {
            extension: metadata.get("ARROW:extension:name").cloned(),
            children: schema.children().map(Self::read).collect::<Result<_, _>>()?,
            dictionary: schema.dictionary().map(Self::read).transpose()?.map(Box::new),
        })
    }

    pub fn child(&self, at: usize) -> Result<&Shape, String> {
        self.children.get(at).ok_or_else(|| "its schema lacks a child".to_owned())
    }

    /// The shape of a dictionary's values.
    pub fn values(&self) -> Result<&Shape, String> {
        self.dictionary.as_deref().ok_or_else(|| "its schema lacks the dictionary".to_owned())
    }
}

/// Take over an array, or a record batch as a struct, from an object of the PyCapsule interface.
///
/// Raises `ValueError` if its type or its buffers' sizes are not what Arrow allows.
pub fn import(source: &Bound<'_, PyAny>) -> PyResult<(ArrayRef, Shape)> {
    let pair = source.call_method0("__arrow_c_array__")?;
    let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) = pair.extract()?;
    let schema: NonNull<FFI_ArrowSchema> = schema.pointer_checked(Some(c_str!("arrow_schema")))?.cast();
    let array: NonNull<FFI_ArrowArray> = array.pointer_checked(Some(c_str!("arrow_array")))?.cast();
    // SAFETY: by the PyCapsule interface a capsule of this name holds a valid ArrowSchema, which
    // lives as long as the capsule; `pair` keeps the capsule alive to the end of this function.
    let schema = unsafe { schema.as_ref() };
    // SAFETY: a capsule of this name holds a valid ArrowArray, ours to move out: what is left is
    // marked as released, so that the capsule's destructor does nothing.
    let array = unsafe { FFI_ArrowArray::from_raw(array.as_ptr()) };
    let shape = Shape::read(schema).map_err(PyValueError::new_err)?;
    // SAFETY: both come from one producer, which vouches for their agreement.
    let data =
        unsafe { from_ffi(array, schema) }.map_err(|error| PyValueError::new_err(error.to_string()))?;
    // Sizes and first and last offsets: a damaged file must not lead out of the buffers.
    data.validate().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((make_array(data), shape))
}

/// Take over a schema from an object of the PyCapsule interface.
pub fn import_schema(source: &Bound<'_, PyAny>) -> PyResult<Schema> {
    let capsule: Bound<'_, PyCapsule> = source.call_method0("__arrow_c_schema__")?.extract()?;
    let schema: NonNull<FFI_ArrowSchema> = capsule.pointer_checked(Some(c_str!("arrow_schema")))?.cast();
    // SAFETY: by the PyCapsule interface a capsule of this name holds a valid ArrowSchema, which
    // lives as long as the capsule.
    Schema::try_from(unsafe { schema.as_ref() }).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Hand an array over to pyarrow.
pub fn export<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Bound<'py, PyAny>> {
    let (array, schema) =
        to_ffi(&array.to_data()).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let schema = PyCapsule::new_with_value(py, schema, c_str!("arrow_schema"))?;
    let array = PyCapsule::new_with_value(py, array, c_str!("arrow_array"))?;
    py.import("pyarrow")?.getattr("Array")?.call_method1("_import_from_c_capsule", (schema, array))
}
