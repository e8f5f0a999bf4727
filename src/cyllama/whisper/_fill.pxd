from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cyllama._native._handle cimport CallState
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext, WhisperGrammar


cdef class FullParams:
    """`WhisperFullParams` as C takes them, and what they point to."""

    cdef lib.whisper_full_params c
    cdef vector[int] suppressed
    cdef vector[lib.whisper_token] prompt
    cdef vector[const lib.whisper_grammar_element *] rules
    cdef WhisperGrammar grammar
    cdef list keep

    cdef int fill(self, WhisperContext context, object params, CallState state) except -1
    cdef const char * _kept(self, bytes raw)


cdef lib.whisper_vad_params fill_vad(object params)
cdef int threads(object n_threads) except -1
