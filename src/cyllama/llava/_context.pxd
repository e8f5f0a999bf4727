from libc.stdint cimport int64_t

from cyllama._native cimport libggml as ggml
from cyllama._native._c_memory cimport CMemory
from cyllama._native._handle cimport CallState, Handle
from cyllama.llama._context cimport LlamaContext
from cyllama.llama._model cimport LlamaModel
from cyllama.llava cimport libmtmd as lib
from cyllama.llava._chunks cimport InputChunk


cdef class MtmdContext(Handle):
    cdef lib.mtmd_context * _ptr
    cdef readonly LlamaModel model
    cdef readonly str path_mmproj
    cdef readonly object params         # MtmdContextParams
    cdef readonly int n_embd            # width of the embeddings
    cdef object _eval_callback          # params.cb_eval
    cdef object _eval_error             # exception of the callback
    cdef void * _call                   # the CallState of the running call
    cdef int64_t _work                  # multiplications since `cancel` was looked at
    cdef bint _has_callback
    cdef bint _wanted                   # whether params.cb_eval requested the current tensor
    cdef readonly int frame_width       # codes or features of a frame of speech, 0 without speech
    cdef size_t _n_encoded              # rows of the last output, 0 without one

    cdef bint _ask(self, ggml.ggml_tensor * tensor) noexcept nogil
    cdef bint _go_on(self, ggml.ggml_tensor * tensor) noexcept nogil
    cdef int _fill(self, lib.mtmd_context_params * c_params, CMemory memory) except -1
    cdef int _check_media(self, InputChunk chunk, bint to_encode) except -1
    cdef int _call_begin(self, CallState state) except -1
    cdef int _call_end(self) noexcept
    cdef int _finish_encode(self, int code, str function, CallState state) except -1
    cdef object _output(self, const float * c_rows, size_t n_rows)
    cdef int _check_place(self, LlamaContext ctx, object n_past, object seq_id, object n_batch) except -1
    cdef int _check_non_causal(self, LlamaContext ctx, InputChunk chunk, int n_batch) except -1
    cdef int _eval_begin(self, LlamaContext ctx, CallState state) except -1
    cdef int _eval_end(self, LlamaContext ctx) noexcept
    cdef int _eval_finish(self, LlamaContext ctx, int code, str function, CallState state) except -1
    cdef int _note_outputs(self, LlamaContext ctx, InputChunk last, int n_batch, bint logits_last) except -1


cdef int copy_floats(object target, const float * source) except -1
cdef int copy_ints(object target, const int * source) except -1
