# shim_grammar.hpp, and the parts of whisper.cpp's grammar-parser.h that it uses.
from libc.stdint cimport uint32_t
from libcpp.map cimport map
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native.libexceptions cimport translate_exception
from cyllama.whisper.libmodel cimport stop_function
from cyllama.whisper.libwhisper cimport whisper_context, whisper_grammar_element


cdef extern from "shim_grammar.hpp" namespace "cyllama::grammar_parser" nogil:
    cdef cppclass parse_state:
        map[string, uint32_t] symbol_ids
        vector[vector[whisper_grammar_element]] rules


cdef extern from "shim_grammar.hpp" namespace "cyllama" nogil:
    parse_state parse_grammar(const string & text) except +translate_exception
    vector[int] matching_tokens(
        whisper_context * ctx, int n_tokens, const string & pattern, stop_function stop,
        void * stop_argument) except +translate_exception
