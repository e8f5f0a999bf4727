from cyllama._native._handle cimport CallState, Handle
from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport LlamaModel


cdef class LlamaContext(Handle):
    cdef lib.llama_context * _ptr
    cdef readonly LlamaModel model
    cdef readonly object params         # LlamaContextParams
    cdef object _samplers               # {seq_id: LlamaSampler} attached to the context, kept alive
    cdef object _loras                  # adapters in use, kept alive
    cdef object _threadpools            # in use, kept alive
    cdef object _other                  # ctx_other, kept alive
    cdef object _abort                  # the callback of set_abort_callback
    cdef object _eval_callback          # params.cb_eval
    cdef object _eval_error             # what it raised
    cdef void * _call                   # the CallState of the running call
    cdef bint _kv_unified
    cdef bint _embeddings
    cdef bytearray _has_output          # one byte for each token of the last batch
    cdef bint _has_optimizer
    cdef int _n_outputs                 # outputs of the last batch, -1 before the first

    cdef int _check_seq(self, object seq_id, bint any_allowed) except -1
    cdef int _check_output(self, object i) except -1
    cdef int _check_memory(self) except -1
    cdef int _call_begin(self, object cancel) except -1
    cdef bint _all_outputs(self) noexcept
    cdef int _note_outputs(self, bytearray flags) noexcept
    cdef object _rows(self, const float * source, size_t n_rows, size_t width)
    cdef object _stop_signal(self, object cancel)
    cdef int _finish(self, int code, str function, CallState state) except -1
