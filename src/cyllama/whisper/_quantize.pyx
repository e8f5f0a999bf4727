"""The numbers of a model in fewer bits: ggml's kernel on a few rows."""

from libc.stdint cimport int64_t, uint8_t

from cyllama._native cimport libggml as ggml

QNT_VERSION: int = ggml.GGML_QNT_VERSION
QNT_VERSION_FACTOR: int = ggml.GGML_QNT_VERSION_FACTOR
# name -> (number of the file type, number of the tensor type)
TYPES: dict[str, tuple[int, int]] = {
    "q4_0": (ggml.GGML_FTYPE_MOSTLY_Q4_0, ggml.GGML_TYPE_Q4_0),
    "q4_1": (ggml.GGML_FTYPE_MOSTLY_Q4_1, ggml.GGML_TYPE_Q4_1),
    "q5_0": (ggml.GGML_FTYPE_MOSTLY_Q5_0, ggml.GGML_TYPE_Q5_0),
    "q5_1": (ggml.GGML_FTYPE_MOSTLY_Q5_1, ggml.GGML_TYPE_Q5_1),
    "q8_0": (ggml.GGML_FTYPE_MOSTLY_Q8_0, ggml.GGML_TYPE_Q8_0),
}


def block_size(name: str) -> int:
    """How many numbers share a scale; rows are a multiple of it. Source: ``ggml_blck_size``, ggml.h."""
    return ggml.ggml_blck_size(<ggml.ggml_type> <int> TYPES[name][1])


def quantize_rows(rows: object, name: str) -> bytes:
    """Quantise whole rows.

    Parameters
    ----------
    rows : array of float32, shape (n, width)
        C order; `width` is a multiple of `block_size`.
    name : str
        One of `TYPES`.

    Returns
    -------
    bytes
        The blocks, row after row.

    Raises
    ------
    ValueError
        The rows cannot be cut into blocks.

    Notes
    -----
    Releases the GIL. Source: ``ggml_quantize_chunk``, ggml.h.
    """
    cdef ggml.ggml_type c_type = <ggml.ggml_type> <int> TYPES[name][1]
    cdef const float[:, ::1] c_rows = rows
    cdef int64_t n = c_rows.shape[0], width = c_rows.shape[1]
    if width == 0 or width % ggml.ggml_blck_size(c_type) != 0:
        raise ValueError(f"rows of {width} numbers, expected a multiple of {ggml.ggml_blck_size(c_type)}")
    out = bytearray(n * ggml.ggml_row_size(c_type, width))
    cdef uint8_t[::1] c_out = out
    if n:
        with nogil:
            ggml.ggml_quantize_chunk(c_type, &c_rows[0, 0], &c_out[0], 0, n, width, NULL)
    return bytes(out)
