# shim_sampler.hpp: sampling without the array of candidates.

from libc.stdint cimport int32_t

from cyllama._native.libexceptions cimport translate_exception
from cyllama.llama.libllama cimport llama_context, llama_sampler, llama_token


cdef extern from "shim_sampler.hpp" namespace "cyllama" nogil:
    llama_token sample_token(llama_sampler * chain, llama_context * ctx, int32_t idx) except +translate_exception
