from libcpp cimport bool as cbool

from cyllama._native._handle cimport Handle
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper.libgrammar cimport parse_state


cdef class WhisperContext(Handle):
    cdef lib.whisper_context * _ptr
    cdef readonly object params
    cdef readonly int n_vocab
    cdef readonly bint has_weights
    cdef object _tokenizer

    cdef int _load(self, object file, object params, object cancel) except -1
    cdef int _check_weights(self) except -1
    cdef int _check_token(self, object token, str what) except -1


cdef class WhisperGrammar:
    cdef parse_state _state
    cdef readonly str text
    cdef readonly str start_rule
    cdef size_t _i_start


cdef cbool ask_stop(void * state) noexcept nogil
