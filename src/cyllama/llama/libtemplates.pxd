# shim_templates.hpp: chat templates.
from libcpp cimport bool
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native.libexceptions cimport translate_exception
from cyllama.llama.libllama cimport llama_model


cdef extern from "shim_templates.hpp" namespace "cyllama" nogil:
    cdef cppclass chat_templates:
        chat_templates(const llama_model * model, const string & text, bool jinja) except +translate_exception
        string source() except +translate_exception
        string apply(const vector[pair[string, string]] & messages, bool generate) except +translate_exception
