"""Tensor types, and tensors of a running graph for the evaluation callbacks (`cb_eval`) of the engines."""

from enum import IntEnum

import numpy as np

from cyllama._native cimport libggml as ggml


def _tensor_types() -> dict[str, int]:
    names = {}
    for i in range(<int> ggml.GGML_TYPE_COUNT):
        name = ggml.ggml_type_name(<ggml.ggml_type> i)
        if name != NULL and ggml.ggml_blck_size(<ggml.ggml_type> i) > 0:
            names[name.decode().upper()] = i
    return names


TensorType = IntEnum("TensorType", _tensor_types())


cdef tuple _shape(ggml.ggml_tensor * tensor):
    return tuple([tensor.ne[i] for i in range(ggml.GGML_MAX_DIMS)])[::-1]


cdef object _values(ggml.ggml_tensor * tensor):
    """Return contiguous F32, F16 and I32 tensors as arrays of their shape, others as raw bytes."""
    cdef size_t n = ggml.ggml_nbytes(tensor)
    raw = np.empty(n, np.uint8)
    cdef unsigned char[::1] view
    cdef void * c_data
    if n:
        view = raw
        c_data = &view[0]
        with nogil:
            ggml.ggml_backend_tensor_get(tensor, c_data, 0, n)
    dtypes = {<int> ggml.GGML_TYPE_F32: np.float32, <int> ggml.GGML_TYPE_F16: np.float16,
              <int> ggml.GGML_TYPE_I32: np.int32}
    dtype = dtypes.get(<int> tensor.type)
    if dtype is None or not ggml.ggml_is_contiguous(tensor):
        return raw
    return raw.view(dtype).reshape(_shape(tensor))


cdef int ask_about_tensor(object callback, ggml.ggml_tensor * tensor, bint ask) except -1:
    """Call ``callback(name, op, shape, values)``; `values` is None in the first call for a tensor (`ask`).

    The first call returns whether the callback needs the values; the second returns False to stop the computation.
    """
    answer = callback(ggml.ggml_get_name(tensor).decode(), ggml.ggml_op_desc(tensor).decode(), _shape(tensor),
                      None if ask else _values(tensor))
    return bool(answer) if ask else answer is not False
