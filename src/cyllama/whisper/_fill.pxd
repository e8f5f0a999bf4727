from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cyllama._native._c_memory cimport CMemory
from cyllama._native._handle cimport CallState
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext, WhisperGrammar


cdef class FullParams:
    """`WhisperFullParams` as C takes them, and the memory that they point to."""

    cdef lib.whisper_full_params c
    cdef vector[int] suppressed
    cdef vector[lib.whisper_token] prompt
    cdef vector[const lib.whisper_grammar_element *] rules
    cdef WhisperGrammar grammar
    cdef CMemory memory

    cdef int fill(self, WhisperContext context, object params, CallState state) except -1


cdef lib.whisper_vad_params fill_vad(object params)
cdef int threads(object n_threads) except -1
