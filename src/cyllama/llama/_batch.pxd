from cyllama._native._handle cimport Handle
from cyllama.llama cimport libllama as lib
from cyllama.llama._context cimport LlamaContext


cdef class LlamaBatch(Handle):
    cdef lib.llama_batch _batch
    cdef readonly int capacity
    cdef readonly int embd
    cdef readonly int n_seq_max

    cdef int _room(self, Py_ssize_t n) except -1
    cdef int _place(self, int i, int pos, object seq_ids, bint logits) except -1
    cdef int _check_for(self, LlamaContext ctx, bint encode) except -1
    cdef bytearray _output_flags(self, bint output_all)


cdef class LlamaBatchExt(Handle):
    cdef lib.llama_batch_ext * _ptr
    cdef LlamaContext _context
    cdef bytearray _outputs     # one byte for each entry: whether its output is wanted
    cdef bytearray _placed      # one byte for each entry: whether it has a position

    cdef int _added(self, int code, str what) except -1
    cdef lib.llama_embd _row(self, const float[:, ::1] rows) except *
    cdef int _index(self, object idx) except -1
    cdef int _missing_position(self) except? -2
    cdef bytearray _output_flags(self, bint output_all)
