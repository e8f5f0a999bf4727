# common.h, sampling.h, speculative.h of llama.cpp's `common`, and shim_common.hpp.
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native.libexceptions cimport translate_exception
from cyllama.llama.libllama cimport (
    llama_adapter_lora,
    llama_batch,
    llama_context,
    llama_context_params,
    llama_logit_bias,
    llama_model,
    llama_model_kv_override,
    llama_model_params,
    llama_token,
    llama_token_data_array,
)


cdef extern from "common.h" nogil:
    void string_process_escapes(string & input) except +translate_exception

    cdef cppclass common_params_sampling:
        vector[llama_logit_bias] logit_bias
        vector[string] dry_sequence_breakers

    cdef struct common_cpu_params:
        bool cpumask[512]
        bool mask_valid

    cdef struct common_adapter_lora_info:
        string path
        float scale
        llama_adapter_lora * ptr

    cdef struct common_control_vector_load_info:
        float strength
        string fname

    cdef cppclass common_params:
        common_cpu_params cpuparams
        common_cpu_params cpuparams_batch
        common_params_sampling sampling
        vector[common_adapter_lora_info] lora_adapters
        vector[common_control_vector_load_info] control_vectors
        float tensor_split[128]
        vector[string] antiprompt
        vector[llama_model_kv_override] kv_overrides

    cdef struct common_control_vector_data:
        int n_embd
        vector[float] data

    llama_model_params common_model_params_to_llama(common_params & params) except +translate_exception
    llama_context_params common_context_params_to_llama(const common_params & params) except +translate_exception
    string common_params_get_system_info(const common_params & params) except +translate_exception
    common_control_vector_data common_control_vector_load(
        const vector[common_control_vector_load_info] & load_infos) except +translate_exception


cdef extern from "sampling.h" nogil:
    cdef struct common_sampler:
        pass
    common_sampler * common_sampler_init(
        const llama_model * model, common_params_sampling & params) except +translate_exception
    void common_sampler_free(common_sampler * gsmpl) noexcept
    void common_sampler_accept(
        common_sampler * gsmpl, llama_token token, bool is_generated) except +translate_exception
    void common_sampler_reset(common_sampler * gsmpl) except +translate_exception
    common_sampler * common_sampler_clone(common_sampler * gsmpl) except +translate_exception
    llama_token common_sampler_sample(
        common_sampler * gsmpl, llama_context * ctx, int idx, bool grammar_first) except +translate_exception
    vector[llama_token] common_sampler_sample_and_accept_n(
        common_sampler * gsmpl, llama_context * ctx, const vector[int] & idxs, const vector[llama_token] & draft,
        bool grammar_first) except +translate_exception
    uint32_t common_sampler_get_seed(const common_sampler * gsmpl) except +translate_exception
    llama_token_data_array * common_sampler_get_candidates(
        common_sampler * gsmpl, bool do_sort) except +translate_exception
    llama_token common_sampler_last(const common_sampler * gsmpl) except +translate_exception
    string common_sampler_print(const common_sampler * gsmpl) except +translate_exception
    string common_sampler_prev_str(common_sampler * gsmpl, llama_context * ctx, int n) except +translate_exception


cdef extern from "speculative.h" nogil:
    const char * common_speculative_all_types_str() except +translate_exception


cdef extern from "shim_common.hpp" namespace "cyllama" nogil:
    cdef enum field_kind "cyllama::field_value::kind_t":
        INTEGER "cyllama::field_value::INTEGER"
        REAL "cyllama::field_value::REAL"
        BOOLEAN "cyllama::field_value::BOOLEAN"
        TEXT "cyllama::field_value::TEXT"

    cdef cppclass field_value:
        field_kind kind
        int64_t integer
        double real
        string text
        int64_t low
        int64_t high

    vector[string] field_names(common_params & p) except +translate_exception
    bool get_field(common_params & p, const string & wanted, field_value & value) except +translate_exception
    void set_field(common_params & p, const string & wanted, const field_value & value) except +translate_exception
    vector[string] get_samplers(const common_params_sampling & s) except +translate_exception
    size_t set_samplers(common_params_sampling & s, const vector[string] & names) except +translate_exception
    vector[string] get_speculative_types(const common_params & p) except +translate_exception
    void set_speculative_types(common_params & p, const vector[string] & names) except +translate_exception
    void set_grammar(common_params_sampling & s, const string & grammar) except +translate_exception
    string schema_to_grammar(const string & schema) except +translate_exception
    void silence_common_log() except +translate_exception

    cdef cppclass speculative:
        speculative() except +
        bool init(const vector[string] & types, const common_params & base, llama_context * target,
                  llama_context * draft, uint32_t n_seq) except +translate_exception
        void begin(int32_t seq_id, const vector[llama_token] & prompt) except +translate_exception
        bool process(const llama_batch & batch) except +translate_exception
        vector[llama_token] draft(int32_t seq_id, const vector[llama_token] & prompt, llama_token id_last,
                                  int32_t n_max) except +translate_exception
        void accept(int32_t seq_id, uint16_t n_accepted) except +translate_exception
