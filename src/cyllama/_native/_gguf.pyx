"""GGUF files: metadata and tensors, reading and writing."""

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cyllama._native._exit cimport RunningCall
from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._files cimport CFile
from cyllama._native._handle cimport Handle, path_bytes
from cyllama._native cimport libgguf as lib

from cyllama._native import _core
from cyllama._native.files import atomic_path, final_path
from cyllama.errors import EngineError, ModelLoadError, UnsupportedError
from cyllama._params import enum_value
from cyllama._native._tensors import TensorType

ALIGNMENT_KEY = "general.alignment"
MAX_ALIGNMENT = 1 << 20     # the engine writes padding byte by byte

_DTYPES = {
    "u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "u32": np.uint32, "i32": np.int32,
    "f32": np.float32, "bool": np.int8, "u64": np.uint64, "i64": np.int64, "f64": np.float64,
}
_TENSOR_DTYPES = {
    TensorType.F32: np.float32, TensorType.F16: np.float16, TensorType.F64: np.float64, TensorType.I8: np.int8,
    TensorType.I16: np.int16, TensorType.I32: np.int32, TensorType.I64: np.int64,
}
_TYPE_IDS = {lib.gguf_type_name(<lib.gguf_type> i).decode(): i for i in range(<int> lib.GGUF_TYPE_COUNT)}
_TYPE_NAMES = {number: name for name, number in _TYPE_IDS.items()}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a GGUF file.

    Attributes
    ----------
    name : str
    type : TensorType
    shape : tuple of int
        As NumPy counts: the last dimension is contiguous.
    offset : int
        Bytes from the beginning of the data section.
    size : int
        Bytes.
    """

    name: str
    type: TensorType
    shape: tuple
    offset: int
    size: int


cdef str _text(const char * c_text):
    """Return text of a file; invalid UTF-8 becomes surrogate escapes, which are written back unchanged."""
    return c_text.decode("utf-8", "surrogateescape")


cdef bytes _raw(object text, str what):
    """Return text for C, which ends at the first null character."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is {text!r}, expected str")
    if "\0" in text:
        raise ValueError(f"{what} is {text!r}, expected a str without null characters")
    return text.encode("utf-8", "surrogateescape")


def _check_header(raw: bytes) -> None:
    with open(raw, "rb") as f:
        magic = f.read(4)
    if magic != b"GGUF":
        what = "is empty" if not magic else f"begins with {magic!r}"
        raise ModelLoadError(f"{os.fsdecode(raw)} {what}, expected a GGUF file", engine="llama")


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class GGUFContext(Handle):
    """The content of a GGUF file: a mapping of metadata, and tensors.

    It is made by :meth:`from_file`, :meth:`from_bytes`, :meth:`from_fileobj` or :meth:`empty`.

    Notes
    -----
    Thread safety: one thread at a time. Source: gguf.h.
    """

    def __init__(self) -> None:
        if not self._open:
            raise TypeError("use GGUFContext.from_file(path), from_bytes(data), from_fileobj(f) or empty()")

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        lib.gguf_free(self._ptr)
        self._ptr = NULL
        if self._tensors != NULL:
            ggml.ggml_free(self._tensors)
            self._tensors = NULL
        return 0

    cdef int _made(self, str what) except -1:
        if self._ptr == NULL:
            raise engine_error(ModelLoadError, f"{what} is not a valid GGUF file", "llama", "gguf_init", None)
        self._data = {}
        self._opened("GGUFContext", None)
        return 0

    def _check_complete(self, what: str, size: int) -> None:
        """Check that the tensors are within `size` bytes; a file can also contain only metadata."""
        begin = lib.gguf_get_data_offset(self._ptr)
        if begin >= size:
            return
        for info in self.tensors():
            if begin + info.offset + info.size > size:
                raise ModelLoadError(f"{what} is truncated: tensor {info.name!r} ends at byte "
                                     f"{begin + info.offset + info.size}, the file at {size}", engine="llama")

    @classmethod
    def from_file(cls, path: str | bytes | os.PathLike) -> GGUFContext:
        """Read the metadata and the tensor table of a file; tensor data is read when it is asked for.

        Raises
        ------
        FileNotFoundError, ModelLoadError

        Notes
        -----
        Releases the GIL. Source: ``gguf_init_from_file``, gguf.h.
        """
        cdef bytes raw = path_bytes(path, "path")
        cdef const char * c_path = raw
        cdef lib.gguf_init_params c_params
        c_params.no_alloc = True
        c_params.ctx = NULL
        _check_header(raw)
        cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
        cdef GGUFContext self = GGUFContext.__new__(GGUFContext)
        start_call()
        with nogil:
            self._ptr = lib.gguf_init_from_file(c_path, c_params)
        self.path = os.fsdecode(raw)
        self._made(self.path)
        self._check_complete(self.path, os.path.getsize(raw))
        return self

    @classmethod
    def from_bytes(cls, data: bytes) -> GGUFContext:
        """Read a file's bytes; tensors keep their data. Source: ``gguf_init_from_buffer``, gguf.h."""
        cdef const unsigned char[::1] view = data
        cdef const unsigned char * c_view
        cdef size_t size = view.shape[0]
        cdef lib.gguf_init_params c_params
        c_params.no_alloc = True
        c_params.ctx = NULL
        if size < 4 or bytes(view[:4]) != b"GGUF":
            raise ModelLoadError("the data does not begin with the magic of a GGUF file", engine="llama")
        cdef GGUFContext self = GGUFContext.__new__(GGUFContext)
        start_call()
        c_view = &view[0]
        with nogil:
            self._ptr = lib.gguf_init_from_buffer(c_view, size, c_params)
        self._made("the data")
        self._check_complete("the data", size)
        base = lib.gguf_get_data_offset(self._ptr)
        for info in self.tensors():
            begin = base + info.offset
            if begin + info.size <= size:
                self._data[info.name] = np.frombuffer(bytes(view[begin:begin + info.size]), np.uint8)
        return self

    @classmethod
    def from_fileobj(cls, fileobj) -> GGUFContext:
        """Read from an open binary file, from its present position. Source: ``gguf_init_from_file_ptr``, gguf.h."""
        cdef lib.gguf_init_params c_params
        cdef CFile stream
        cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
        c_params.no_alloc = True
        c_params.ctx = NULL
        cdef GGUFContext self = GGUFContext.__new__(GGUFContext)
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(fileobj, copy)
            copy.seek(0)
            stream = CFile(copy)
            start_call()
            with nogil:
                self._ptr = lib.gguf_init_from_file_ptr(stream.ptr, c_params)
            self._made("the file")
            size = os.fstat(copy.fileno()).st_size
            self._check_complete("the file", size)
            base = lib.gguf_get_data_offset(self._ptr)
            for info in self.tensors() if base < size else ():
                copy.seek(base + info.offset)
                self._data[info.name] = np.frombuffer(copy.read(info.size), np.uint8)
        return self

    @classmethod
    def empty(cls, alignment: int = 32) -> GGUFContext:
        """Return a new, empty context.

        Parameters
        ----------
        alignment : int
            Bytes that tensors are aligned to, a power of two up to 1 MiB; other than 32 it is the key
            ``general.alignment``, which cannot be changed later.

        Notes
        -----
        Source: ``gguf_init_empty``, gguf.h.
        """
        if isinstance(alignment, bool) or not isinstance(alignment, int):
            raise TypeError(f"alignment is {alignment!r}, expected an integer")
        if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise ValueError(f"alignment is {alignment}, expected a power of two up to {MAX_ALIGNMENT}")
        if alignment != 32:  # the engine takes the alignment of a context from a file only
            key = ALIGNMENT_KEY.encode()
            return cls.from_bytes(b"GGUF" + struct.pack("<IqqQ", 3, 0, 1, len(key)) + key
                                  + struct.pack("<II", _TYPE_IDS["u32"], alignment))
        cdef GGUFContext self = GGUFContext.__new__(GGUFContext)
        self._ptr = lib.gguf_init_empty()
        self._made("an empty context")
        return self

    # -------------------------------------------------------------------------------- metadata

    @property
    def version(self) -> int:
        """Version of the format. Source: ``gguf_get_version``, gguf.h."""
        self._check()
        return lib.gguf_get_version(self._ptr)

    @property
    def alignment(self) -> int:
        """Alignment of the tensors in bytes. Source: ``gguf_get_alignment``, gguf.h."""
        self._check()
        return lib.gguf_get_alignment(self._ptr)

    @property
    def data_offset(self) -> int:
        """Where the data section begins, in bytes. Source: ``gguf_get_data_offset``, gguf.h."""
        self._check()
        return lib.gguf_get_data_offset(self._ptr)

    @property
    def meta_size(self) -> int:
        """Size of the metadata as it would be written, in bytes. Source: ``gguf_get_meta_size``, gguf.h."""
        self._check()
        return lib.gguf_get_meta_size(self._ptr)

    @property
    def n_kv(self) -> int:
        """Number of keys. Source: ``gguf_get_n_kv``, gguf.h."""
        self._check()
        return lib.gguf_get_n_kv(self._ptr)

    @property
    def n_tensors(self) -> int:
        """Number of tensors. Source: ``gguf_get_n_tensors``, gguf.h."""
        self._check()
        return lib.gguf_get_n_tensors(self._ptr)

    def keys(self) -> list[str]:
        """Return all keys, in the order of the file. Source: ``gguf_get_key``, gguf.h."""
        self._check()
        return [_text(lib.gguf_get_key(self._ptr, i)) for i in range(lib.gguf_get_n_kv(self._ptr))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return self.n_kv

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) >= 0

    def _find(self, key: str) -> int:
        self._check()
        if "\0" in key:
            return -1
        return lib.gguf_find_key(self._ptr, _raw(key, "key"))

    cdef long long _key_id(self, object key) except -2:
        if not isinstance(key, str):
            raise TypeError(f"key is {key!r}, expected str")
        found = self._find(key)
        if found < 0:
            raise KeyError(key)
        return found

    def type_of(self, key: str) -> str:
        """Return the type of a key: ``"u32"``, ``"str"``, ..., or ``"arr[f32]"`` for arrays; KeyError if there is none.

        Source: ``gguf_get_kv_type``, ``gguf_get_arr_type``, gguf.h.
        """
        cdef long long i = self._key_id(key)
        kind = lib.gguf_get_kv_type(self._ptr, i)
        if kind == lib.GGUF_TYPE_ARRAY:
            return f"arr[{_TYPE_NAMES[<int> lib.gguf_get_arr_type(self._ptr, i)]}]"
        return _TYPE_NAMES[<int> kind]

    def get(self, key: str, default: object = None) -> object:
        """Return the value of a key, or `default`: int, float, bool, str, a list of str, or an array of numbers."""
        return self[key] if key in self else default

    def __getitem__(self, key: str) -> object:
        cdef long long i = self._key_id(key)
        kind = lib.gguf_get_kv_type(self._ptr, i)
        if kind == lib.GGUF_TYPE_ARRAY:
            return self._array(i)
        if kind == lib.GGUF_TYPE_STRING:
            return _text(lib.gguf_get_val_str(self._ptr, i))
        if kind == lib.GGUF_TYPE_UINT8:
            return lib.gguf_get_val_u8(self._ptr, i)
        if kind == lib.GGUF_TYPE_INT8:
            return lib.gguf_get_val_i8(self._ptr, i)
        if kind == lib.GGUF_TYPE_UINT16:
            return lib.gguf_get_val_u16(self._ptr, i)
        if kind == lib.GGUF_TYPE_INT16:
            return lib.gguf_get_val_i16(self._ptr, i)
        if kind == lib.GGUF_TYPE_UINT32:
            return lib.gguf_get_val_u32(self._ptr, i)
        if kind == lib.GGUF_TYPE_INT32:
            return lib.gguf_get_val_i32(self._ptr, i)
        if kind == lib.GGUF_TYPE_FLOAT32:
            return lib.gguf_get_val_f32(self._ptr, i)
        if kind == lib.GGUF_TYPE_BOOL:
            return bool(lib.gguf_get_val_bool(self._ptr, i))
        if kind == lib.GGUF_TYPE_UINT64:
            return lib.gguf_get_val_u64(self._ptr, i)
        if kind == lib.GGUF_TYPE_INT64:
            return lib.gguf_get_val_i64(self._ptr, i)
        return lib.gguf_get_val_f64(self._ptr, i)

    def _array(self, i: int) -> object:
        cdef size_t n = lib.gguf_get_arr_n(self._ptr, i)
        cdef const void * c_data
        kind = lib.gguf_get_arr_type(self._ptr, i)
        if kind == lib.GGUF_TYPE_STRING:
            return [_text(lib.gguf_get_arr_str(self._ptr, i, j)) for j in range(n)]
        values = np.empty(n, _DTYPES[_TYPE_NAMES[<int> kind]])
        cdef unsigned char[::1] view
        if n:
            c_data = lib.gguf_get_arr_data(self._ptr, i)
            view = values.view(np.uint8)
            memcpy(&view[0], c_data, view.shape[0])
        return values.astype(bool) if kind == lib.GGUF_TYPE_BOOL else values

    def metadata(self) -> dict:
        """Return all keys and values."""
        return {key: self[key] for key in self.keys()}

    def set(self, key: str, value: object, type: str | None = None) -> None:
        """Set a key.

        Parameters
        ----------
        key : str
        value : bool, int, float, str, or a list or array of one of them
        type : str, optional
            As :meth:`type_of` writes it. Default: ``bool``, ``str``, ``i32`` or, where that is too small, ``i64`` or
            ``u64`` for integers, ``f32`` for floats; for arrays the array's own type.

        Raises
        ------
        ValueError
            The value does not fit the type.

        Notes
        -----
        Source: ``gguf_set_val_*``, ``gguf_set_arr_data``, ``gguf_set_arr_str``, gguf.h.
        """
        self._hold()  # converting the value may let other threads run
        try:
            self._set(key, value, type)
        finally:
            self._unhold()

    def _set(self, key: str, value: object, type: str | None) -> None:
        if not isinstance(key, str) or not key or "\0" in key:
            raise ValueError(f"key is {key!r}, expected a str that is not empty")
        if type is None:
            type = _infer(value)
        if type.startswith("arr[") and type.endswith("]"):
            if key == ALIGNMENT_KEY:
                raise UnsupportedError(f"{ALIGNMENT_KEY} cannot be an array")
            self._set_array(key, value, type[4:-1])
            return
        if type not in _TYPE_IDS or type == "arr":
            raise ValueError(f"type is {type!r}, expected one of {sorted(_TYPE_IDS)}, or arr[...] of them")
        if key == ALIGNMENT_KEY and (type != "u32" or value != self.alignment):
            raise UnsupportedError(f"the engine cannot change {ALIGNMENT_KEY} (here {self.alignment}, of type u32): "
                                   "use GGUFContext.empty(alignment)")
        self._set_scalar(_raw(key, "key"), value, type)

    def __setitem__(self, key: str, value: object) -> None:
        self.set(key, value)

    def _set_scalar(self, raw: bytes, value, type: str) -> None:
        cdef const char * k = raw
        if type == "str":
            lib.gguf_set_val_str(self._ptr, k, _raw(value, "value"))
        elif type == "bool":
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"value is {value!r}, expected True or False")
            lib.gguf_set_val_bool(self._ptr, k, bool(value))
        elif type == "f32":
            lib.gguf_set_val_f32(self._ptr, k, _array_of([value], "f32")[0])
        elif type == "f64":
            lib.gguf_set_val_f64(self._ptr, k, value)
        else:
            limits = np.iinfo(_DTYPES[type])
            if not hasattr(value, "__index__") or not limits.min <= value <= limits.max:
                raise ValueError(f"value is {value!r}, expected an integer from {limits.min} to {limits.max} ({type})")
            self._set_integer(raw, value, type)

    def _set_integer(self, raw: bytes, value, type: str) -> None:
        cdef const char * k = raw
        if type == "u8":
            lib.gguf_set_val_u8(self._ptr, k, value)
        elif type == "i8":
            lib.gguf_set_val_i8(self._ptr, k, value)
        elif type == "u16":
            lib.gguf_set_val_u16(self._ptr, k, value)
        elif type == "i16":
            lib.gguf_set_val_i16(self._ptr, k, value)
        elif type == "u32":
            lib.gguf_set_val_u32(self._ptr, k, value)
        elif type == "i32":
            lib.gguf_set_val_i32(self._ptr, k, value)
        elif type == "u64":
            lib.gguf_set_val_u64(self._ptr, k, value)
        else:
            lib.gguf_set_val_i64(self._ptr, k, value)

    def _set_array(self, key: str, values, type: str) -> None:
        cdef bytes raw = _raw(key, "key")
        cdef const char ** c_texts
        cdef const unsigned char[::1] view
        if type == "str":
            raws = [_raw(text, "an element of the value") for text in values]
            c_texts = <const char **> PyMem_Calloc(len(raws) + 1, sizeof(char *))
            if c_texts == NULL:
                raise MemoryError()
            try:
                for i, text in enumerate(raws):
                    c_texts[i] = text
                lib.gguf_set_arr_str(self._ptr, raw, c_texts, len(raws))
            finally:
                PyMem_Free(c_texts)
            return
        if type not in _DTYPES:
            raise ValueError(f"type is 'arr[{type}]', expected arr[...] of one of {sorted([*_DTYPES, 'str'])}")
        array = _array_of(values, type)
        view = array.view(np.uint8) if array.size else np.zeros(8, np.uint8)
        lib.gguf_set_arr_data(self._ptr, raw, <lib.gguf_type> <int> _TYPE_IDS[type], &view[0], array.size)

    def remove(self, key: str) -> None:
        """Remove a key. KeyError when it is not there. Source: ``gguf_remove_key``, gguf.h."""
        self._key_id(key)
        if key == ALIGNMENT_KEY and self.alignment != 32:
            raise UnsupportedError(f"a file aligned to {self.alignment} bytes cannot be read without {ALIGNMENT_KEY}")
        lib.gguf_remove_key(self._ptr, _raw(key, "key"))

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def copy_from(self, other: GGUFContext) -> None:
        """Set all keys of another context here as well, except the alignment. Source: ``gguf_set_kv``, gguf.h."""
        self._check()
        (<GGUFContext?> other)._check()
        if other is self:
            return
        if "" in other.keys():
            raise ValueError("the other context has a key that begins with a null character")
        lib.gguf_set_kv(self._ptr, (<GGUFContext> other)._ptr)
        if self.get(ALIGNMENT_KEY, self.alignment) != self.alignment:
            lib.gguf_remove_key(self._ptr, b"general.alignment")
            if self.alignment != 32:
                lib.gguf_set_val_u32(self._ptr, b"general.alignment", self.alignment)

    # --------------------------------------------------------------------------------- tensors

    cdef long long _tensor_id(self, object name) except -2:
        self._check()
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}, expected str")
        cdef long long i = -1
        if "\0" not in name:
            i = lib.gguf_find_tensor(self._ptr, _raw(name, "name"))
        if i < 0:
            raise KeyError(name)
        return i

    def tensors(self) -> list[TensorInfo]:
        """Return the tensor table. Source: ``gguf_get_tensor_name`` and others, gguf.h."""
        self._hold()  # other threads run between the tensors
        try:
            return [self._info(i) for i in range(lib.gguf_get_n_tensors(self._ptr))]
        finally:
            self._unhold()

    def _info(self, i: int) -> TensorInfo:
        cdef const int64_t * ne = lib.gguf_get_tensor_ne(self._ptr, i)
        shape = [ne[d] for d in range(ggml.GGML_MAX_DIMS)]
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        return TensorInfo(
            _text(lib.gguf_get_tensor_name(self._ptr, i)),
            TensorType(<int> lib.gguf_get_tensor_type(self._ptr, i)), tuple(shape[::-1]),
            lib.gguf_get_tensor_offset(self._ptr, i), lib.gguf_get_tensor_size(self._ptr, i))

    def tensor_info(self, name: str) -> TensorInfo:
        """Return one tensor of the table. KeyError if it does not exist. Source: ``gguf_find_tensor``, gguf.h."""
        self._hold()
        try:
            return self._info(self._tensor_id(name))
        finally:
            self._unhold()

    def tensor_data(self, name: str) -> np.ndarray:
        """Return the data of a tensor.

        Returns
        -------
        ndarray
            Of its shape for plain types (float16, float32, float64, integers); otherwise the raw bytes, uint8,
            shape (size,). Read from the file for contexts of :meth:`from_file`.
        """
        info = self.tensor_info(name)
        self._hold()  # reading the file releases the GIL
        try:
            raw = self._raw_data(info)
        finally:
            self._unhold()
        dtype = _TENSOR_DTYPES.get(info.type)
        return raw.copy() if dtype is None else raw.view(dtype).reshape(info.shape).copy()

    def _raw_data(self, info: TensorInfo) -> np.ndarray:
        """Return the bytes of a tensor, uint8, shape (size,)."""
        name = info.name
        raw = self._data.get(name)
        if raw is None:
            if lib.gguf_get_data_offset(self._ptr) == 0:
                raise EngineError(f"tensor {name!r} has no data", engine="llama")
            if self.path is None:
                raise EngineError(f"tensor {name!r} has no data", engine="llama")
            with open(self.path, "rb") as f:
                f.seek(lib.gguf_get_data_offset(self._ptr) + info.offset)
                raw = np.frombuffer(f.read(info.size), np.uint8)
        raw = np.asarray(raw).reshape(-1).view(np.uint8)
        if len(raw) != info.size:
            raise ModelLoadError(f"the data of tensor {name!r} has {len(raw)} of {info.size} bytes", engine="llama")
        return raw

    def add_tensor(self, name: str, data: np.ndarray, type: int | str | None = None, *, copy: bool = True) -> None:
        """Add a tensor.

        Parameters
        ----------
        name : str
            1 to ``GGML_MAX_NAME`` - 1 bytes, not yet used.
        data : ndarray
            float16, float32, float64 or an integer type, 1 to 4 dimensions, the last one contiguous. With `type`:
            the raw bytes (uint8) of a quantised tensor whose shape is ``data.shape`` with the row size in bytes last.
        type : TensorType, number or name, optional
        copy : bool
            False keeps `data` itself, such as an ``np.memmap``: it must not change before the file is written.

        Notes
        -----
        Source: ``gguf_add_tensor``, gguf.h.
        """
        self._check()
        raw = _raw(name, "name")
        if not 0 < len(raw) < ggml.GGML_MAX_NAME:
            raise ValueError(f"name is {name!r}, expected 1 to {ggml.GGML_MAX_NAME - 1} bytes")
        if lib.gguf_find_tensor(self._ptr, raw) >= 0:
            raise ValueError(f"there is a tensor {name!r} already")
        array = np.array(data, order="C") if copy else np.ascontiguousarray(data)
        if not 1 <= array.ndim <= ggml.GGML_MAX_DIMS or not array.size:
            raise ValueError(f"data has shape {array.shape}, expected 1 to {ggml.GGML_MAX_DIMS} dimensions, not empty")
        shape = list(array.shape)
        if type is None:
            kinds = {np.dtype(dtype): kind for kind, dtype in _TENSOR_DTYPES.items()}
            if array.dtype.newbyteorder("=") not in kinds:
                raise TypeError(f"data has dtype {array.dtype}, expected float16, float32, float64 or int8 to int64")
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
            kind = kinds[array.dtype]
        else:
            kind = TensorType(enum_value(TensorType, type, "type"))
            if array.dtype != np.uint8:
                raise TypeError(f"data has dtype {array.dtype}, expected the raw bytes (uint8) of {kind.name}")
            block = ggml.ggml_blck_size(<ggml.ggml_type> <int> kind)
            size = ggml.ggml_type_size(<ggml.ggml_type> <int> kind)
            if shape[-1] % size:
                raise ValueError(f"a row has {shape[-1]} bytes, expected a multiple of {size} ({kind.name})")
            shape[-1] = shape[-1] // size * block
        self._add(raw, kind, shape)
        self._data[name] = array
        self._attach(name)

    def _add(self, raw: bytes, kind: TensorType, shape: list) -> None:
        cdef ggml.ggml_init_params c_params
        cdef int64_t c_ne[4]
        cdef ggml.ggml_tensor * tensor
        cdef ggml.ggml_context * c_ctx
        for d, n in enumerate(reversed(shape)):
            c_ne[d] = n
        c_params.mem_size = 2 * ggml.ggml_tensor_overhead()
        c_params.mem_buffer = NULL
        c_params.no_alloc = True
        c_ctx = ggml.ggml_init(c_params)
        if c_ctx == NULL:
            raise MemoryError()
        try:
            tensor = ggml.ggml_new_tensor(c_ctx, <ggml.ggml_type> <int> kind, <int> len(shape), c_ne)
            ggml.ggml_set_name(tensor, raw)
            lib.gguf_add_tensor(self._ptr, tensor)  # copies the header
        finally:
            ggml.ggml_free(c_ctx)

    def _attach(self, name: str) -> None:
        """Set the address of the data of an added tensor."""
        cdef const unsigned char[::1] view = self._data[name].reshape(-1).view(np.uint8)
        lib.gguf_set_tensor_data(self._ptr, _raw(name, "name"), &view[0])

    def set_tensor_type(self, name: str, type: int | str) -> None:
        """Change the type in the table; data that was added must be given anew. Source: ``gguf_set_tensor_type``."""
        info = self.tensor_info(name)
        kind = TensorType(enum_value(TensorType, type, "type"))
        block = ggml.ggml_blck_size(<ggml.ggml_type> <int> kind)
        if info.shape[-1] % block:
            raise ValueError(f"rows of {info.shape[-1]} values cannot be {kind.name}: its blocks have {block} values")
        if kind == info.type:
            return
        for other in self.tensors():  # what the engine does to the offsets must not change what is read
            if other.name != name and other.name not in self._data:
                self._data[other.name] = self._raw_data(other).copy()
        lib.gguf_set_tensor_type(self._ptr, _raw(name, "name"), <ggml.ggml_type> <int> kind)
        self._data[name] = np.empty(0, np.uint8)

    def set_tensor_data(self, name: str, data: np.ndarray) -> None:
        """Replace a tensor's data, which must have the size in bytes of its type and shape. The data is copied.

        Raises KeyError or ValueError. Source: ``gguf_set_tensor_data``, gguf.h.
        """
        info = self.tensor_info(name)
        raw = np.array(data, order="C").reshape(-1).view(np.uint8)
        if len(raw) != info.size:
            raise ValueError(f"data has {len(raw)} bytes, expected {info.size} for {name!r}")
        self._data[name] = raw
        self._attach(name)

    # --------------------------------------------------------------------------------- writing

    def meta_data(self) -> bytes:
        """Return the metadata in the form of a file. Source: ``gguf_get_meta_data``, gguf.h."""
        self._check()
        self._check_alignment()
        data = bytearray(lib.gguf_get_meta_size(self._ptr))
        cdef unsigned char[::1] view = data
        lib.gguf_get_meta_data(self._ptr, &view[0])
        return bytes(data)

    def write(self, path: str | bytes | os.PathLike, only_meta: bool = False) -> None:
        """Write a file, atomically.

        Parameters
        ----------
        path : path
        only_meta : bool
            Leave the tensor data out.

        Raises
        ------
        OSError
            The file cannot be written.

        Notes
        -----
        Releases the GIL. Source: ``gguf_write_to_file``, gguf.h.
        """
        self._check_alignment()
        target = final_path(path)
        self._begin()
        try:
            with atomic_path(target) as temporary:
                self._write(temporary, only_meta)
                if self.path is not None and os.path.realpath(self.path) == os.fspath(target):
                    for info in self.tensors():  # the file they are read from is about to go
                        self._data.setdefault(info.name, self._raw_data(info).copy())
        finally:
            self._end()

    def _check_alignment(self) -> None:
        if self.alignment > MAX_ALIGNMENT:
            raise UnsupportedError(f"the alignment is {self.alignment}, expected {MAX_ALIGNMENT} at most")

    def _write(self, path: str, only_meta: bool) -> None:
        """Write the metadata, then each tensor: the engine can write only the data of tensors that were added here."""
        cdef bytes raw = os.fsencode(path)
        cdef const char * c_path = raw
        cdef bint ok
        start_call()
        with nogil:
            ok = lib.gguf_write_to_file(self._ptr, c_path, True)
        if not ok:
            raise OSError(f"{path} cannot be written: {'; '.join(_core.last_log())}")
        if only_meta:
            return
        alignment = self.alignment
        with open(path, "ab") as f:
            for info in self.tensors():
                f.write(memoryview(self._raw_data(info)))
                f.write(b"\0" * (-info.size % alignment))

    def __repr__(self) -> str:
        if not self._open:
            return "<GGUFContext (closed)>"
        return f"<GGUFContext {self.n_kv} keys, {self.n_tensors} tensors, {self.path or 'in memory'}>"


def _array_of(values: object, type: str) -> np.ndarray:
    """Return `values` as the array that GGUF stores; raise an error if that would change them."""
    if type[0] in "iu" and _all_integers(values):  # NumPy would make floats of some lists
        limits = np.iinfo(_DTYPES[type])
        if not all(limits.min <= value <= limits.max for value in values):
            raise ValueError(f"the value has elements that do not fit {type}")
        return np.array(values, _DTYPES[type])
    given = np.asarray(values)
    if given.ndim != 1:
        raise ValueError(f"the array has {given.ndim} dimensions, expected 1")
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[type[0]]
    if given.size and given.dtype.kind not in kinds:
        raise TypeError(f"the value has elements of {given.dtype}, expected some for {type}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(given, _DTYPES[type])
    if type[0] in "iu" and not np.array_equal(array, given):
        raise ValueError(f"the value has elements that do not fit {type}")
    if type[0] == "f" and not np.array_equal(np.isfinite(array), np.isfinite(given)):
        raise ValueError(f"the value has elements that are too large for {type}")
    return array


def _all_integers(values: object) -> bool:
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(
        isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values)


def _infer(value: object) -> str:
    """Return the GGUF type of a Python value."""
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, str):
        return "str"
    if isinstance(value, (int, np.integer)):
        if -2**31 <= value < 2**31:
            return "i32"
        return "i64" if value < 2**63 else "u64"
    if isinstance(value, (float, np.floating)):
        return "f32"
    if isinstance(value, (list, tuple, np.ndarray)):
        if len(value) and all(isinstance(v, str) for v in value):
            return "arr[str]"
        if _all_integers(value):
            if -2**31 <= min(value) and max(value) < 2**31:
                return "arr[i32]"
            return "arr[i64]" if max(value) < 2**63 else "arr[u64]"
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.ndarray):
            return "arr[f32]"
        if array.dtype == bool:
            return "arr[bool]"
        names = {np.dtype(dtype): name for name, dtype in _DTYPES.items() if name != "bool"}
        if array.dtype in names:
            return f"arr[{names[array.dtype]}]"
    raise TypeError(f"value is {value!r}, expected bool, int, float, str, or a list or array of one of them")
