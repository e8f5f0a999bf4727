# shim_engine.hpp: llama.cpp's server in this process.
from libc.stdint cimport uint8_t, uint32_t
from libcpp cimport bool
from libcpp.map cimport map
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native.libexceptions cimport translate_exception
from cyllama._native.libggml cimport ggml_log_callback
from cyllama.llama.libcommon cimport common_params


cdef extern from "shim_engine.hpp" namespace "cyllama" nogil:
    cdef struct engine_hooks:
        bool (*poll)(void * state) noexcept nogil
        bool (*progress)(float part, void * state) noexcept nogil
        void * state

    cdef struct option_info:
        vector[string] names
        string help
        int values
        bool negated

    cdef struct field_info:
        vector[string] names
        string help
        string kind
        bool limited
        double least
        double most

    cdef struct device_need:
        string name
        bool host
        size_t model
        size_t context
        size_t compute
        size_t projector
        size_t free
        size_t total

    cdef struct memory_need:
        vector[device_need] devices
        uint32_t n_ctx
        uint32_t n_ctx_train

    cdef cppclass engine:
        engine(const common_params & given) except +translate_exception
        bool load(engine_hooks & hooks) except +translate_exception
        int pooling()
        vector[string] control_texts()
        string failure()

    cdef cppclass exchange:
        exchange(const engine & owner, const string & route, const string & body,
                 const map[string, string] & params, vector[vector[uint8_t]] & files) except +translate_exception
        void run(engine_hooks & hooks) except +translate_exception
        bool is_stream()
        int status()
        const string & data()
        bool next(string & part, engine_hooks & hooks) except +translate_exception

    common_params parse_options(const vector[string] & options) except +translate_exception
    string take_template_error()
    memory_need estimate_memory(const common_params & given) except +translate_exception
    vector[option_info] known_options() except +translate_exception
    vector[field_info] known_fields() except +translate_exception
    bool has_route(const string & route)
    void set_projector_log(ggml_log_callback hook, void * data)
