"""Quantization of rows of a matrix with ggml's kernels."""

from libc.stdint cimport int64_t, uint8_t

from cyllama._native._exit cimport RunningCall
from cyllama._native cimport libggml as ggml

_TYPES = {
    "q4_0": (ggml.GGML_FTYPE_MOSTLY_Q4_0, ggml.GGML_TYPE_Q4_0),
    "q4_1": (ggml.GGML_FTYPE_MOSTLY_Q4_1, ggml.GGML_TYPE_Q4_1),
    "q5_0": (ggml.GGML_FTYPE_MOSTLY_Q5_0, ggml.GGML_TYPE_Q5_0),
    "q5_1": (ggml.GGML_FTYPE_MOSTLY_Q5_1, ggml.GGML_TYPE_Q5_1),
    "q8_0": (ggml.GGML_FTYPE_MOSTLY_Q8_0, ggml.GGML_TYPE_Q8_0),
}


def type_names() -> tuple[str, ...]:
    """Return the supported types, the smallest first."""
    return tuple(_TYPES)


def file_type(name: str) -> int:
    """Return the file type of a model in its header, with the version of the quantization format."""
    return ggml.GGML_QNT_VERSION * ggml.GGML_QNT_VERSION_FACTOR + _TYPES[name][0]


def tensor_type(name: str) -> int:
    """Return the number of a tensor type."""
    return _TYPES[name][1]


def block_size(name: str) -> int:
    """Return the number of values with one scale; rows are a multiple of it. Source: ``ggml_blck_size``, ggml.h."""
    return ggml.ggml_blck_size(<ggml.ggml_type> <int> _TYPES[name][1])


def quantize_rows(rows: object, name: str) -> bytes:
    """Quantize whole rows.

    Parameters
    ----------
    rows : array of float32, shape (n, width)
        C order; `width` is a multiple of `block_size`.
    name : str
        One of `type_names`.

    Returns
    -------
    bytes
        The blocks, row after row.

    Raises
    ------
    ValueError
        The width is not a multiple of the block size.

    Notes
    -----
    Releases the GIL. Source: ``ggml_quantize_chunk``, ggml.h.
    """
    cdef ggml.ggml_type c_type = <ggml.ggml_type> <int> _TYPES[name][1]
    cdef const float[:, ::1] rows_view = rows
    cdef const float * c_rows
    cdef int64_t n = rows_view.shape[0], width = rows_view.shape[1]
    if width == 0 or width % ggml.ggml_blck_size(c_type) != 0:
        raise ValueError(f"width is {width}, expected a multiple of {ggml.ggml_blck_size(c_type)}")
    out = bytearray(n * ggml.ggml_row_size(c_type, width))
    cdef uint8_t[::1] out_view = out
    cdef uint8_t * c_out
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    if n:
        c_rows = &rows_view[0, 0]
        c_out = &out_view[0]
        with nogil:
            ggml.ggml_quantize_chunk(c_type, c_rows, c_out, 0, n, width, NULL)
    return bytes(out)
