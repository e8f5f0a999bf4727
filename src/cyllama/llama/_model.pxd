from cyllama._native._handle cimport CallState, Handle
from cyllama.llama cimport libllama as lib


cdef class LlamaModel(Handle):
    cdef lib.llama_model * _ptr
    cdef const lib.llama_vocab * _vocab_ptr
    cdef readonly object path_model     # str, or None when the model did not come from a path
    cdef readonly object params         # LlamaModelParams
    cdef object _buffers                # what the C parameters point to (device lists, overrides)
    cdef readonly int n_vocab
    cdef int _n_positions       # of a table of learned positions; 0 without one

    cdef CallState _prepare(self, object params, object cancel, lib.llama_model_params * c_params)
    cdef int _loaded(self, object state) except -1
    cdef int _check_token(self, object token) except -1


cdef int fill_kv_overrides(object overrides, lib.llama_model_kv_override * c_list) except -1
