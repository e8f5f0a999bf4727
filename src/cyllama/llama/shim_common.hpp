// The plain fields of upstream's common_params by name, and the few calls whose types Cython cannot spell.
#pragma once

#include "common.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "log.h"
#include "sampling.h"
#include "speculative.h"

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

namespace cyllama {


struct field_value {
    enum kind_t { INTEGER, REAL, BOOLEAN, TEXT } kind = INTEGER;
    int64_t     integer = 0;
    double      real    = 0.0;
    std::string text;
    int64_t     low = 0, high = 0; // of an integer field
};

template <class T> inline void read_field(const T & field, field_value & value) {
    if constexpr (std::is_same_v<T, bool>) {
        value.kind    = field_value::BOOLEAN;
        value.integer = field;
    } else if constexpr (std::is_same_v<T, std::string>) {
        value.kind = field_value::TEXT;
        value.text = field;
    } else if constexpr (std::is_floating_point_v<T>) {
        value.kind = field_value::REAL;
        value.real = field;
    } else if constexpr (std::is_enum_v<T>) {
        value.integer = (int64_t) field;
        value.low     = std::numeric_limits<int32_t>::min();
        value.high    = std::numeric_limits<int32_t>::max();
    } else {
        value.integer = (int64_t) field;
        value.low     = (int64_t) std::numeric_limits<T>::min();
        value.high    = sizeof(T) == 8 ? std::numeric_limits<int64_t>::max() : (int64_t) std::numeric_limits<T>::max();
    }
}

template <class T> inline void write_field(T & field, const field_value & value) {
    if constexpr (std::is_same_v<T, bool>) {
        field = value.integer != 0;
    } else if constexpr (std::is_same_v<T, std::string>) {
        field = value.text;
    } else if constexpr (std::is_floating_point_v<T>) {
        field = (T) value.real;
    } else {
        field = (T) value.integer;
    }
}

// Calls f(name, field) for every plain field.
template <class F> inline void for_each_field(common_params & p, F && f) {
#define X(name) f(#name, p.name);
    X(prompt) X(system_prompt) X(prompt_file) X(input_prefix) X(input_suffix) X(chat_template) X(path_prompt_cache)
    X(n_predict) X(n_ctx) X(n_batch) X(n_ubatch) X(n_keep) X(n_chunks) X(n_parallel) X(n_sequences)
    X(n_outputs_max) X(n_outputs_max_per_seq) X(grp_attn_n) X(grp_attn_w) X(n_print)
    X(rope_freq_base) X(rope_freq_scale) X(yarn_ext_factor) X(yarn_attn_factor) X(yarn_beta_fast) X(yarn_beta_slow)
    X(yarn_orig_ctx) X(n_gpu_layers) X(main_gpu) X(split_mode) X(load_mode) X(lazy_mode) X(numa)
    X(rope_scaling_type) X(pooling_type) X(attention_type) X(flash_attn_type) X(cache_type_k) X(cache_type_v)
    X(verbosity) X(control_vector_layer_start) X(control_vector_layer_end) X(embedding) X(embd_normalize)
    X(swa_full) X(kv_unified) X(no_perf) X(check_tensors) X(no_kv_offload) X(no_op_offload) X(no_extra_bufts) X(no_host)
    X(no_alloc) X(ctx_shift) X(warmup) X(escape) X(interactive) X(interactive_first) X(special) X(simple_io)
    X(multiline_input) X(display_prompt) X(use_jinja) X(enable_chat_template) X(prefill_assistant) X(spm_infill)
    X(cpuparams.n_threads) X(cpuparams.priority) X(cpuparams.strict_cpu) X(cpuparams.poll)
    X(cpuparams_batch.n_threads) X(cpuparams_batch.priority) X(cpuparams_batch.strict_cpu) X(cpuparams_batch.poll)
    X(sampling.seed) X(sampling.n_prev) X(sampling.n_probs) X(sampling.min_keep) X(sampling.top_k) X(sampling.top_p)
    X(sampling.min_p) X(sampling.xtc_probability) X(sampling.xtc_threshold) X(sampling.typ_p) X(sampling.temp)
    X(sampling.dynatemp_range) X(sampling.dynatemp_exponent) X(sampling.penalty_last_n) X(sampling.penalty_repeat)
    X(sampling.penalty_freq) X(sampling.penalty_present) X(sampling.dry_multiplier) X(sampling.dry_base)
    X(sampling.dry_allowed_length) X(sampling.dry_penalty_last_n) X(sampling.adaptive_target)
    X(sampling.adaptive_decay) X(sampling.mirostat) X(sampling.top_n_sigma) X(sampling.mirostat_tau)
    X(sampling.mirostat_eta) X(sampling.ignore_eos) X(sampling.no_perf) X(sampling.timing_per_token)
    X(sampling.backend_sampling)
    X(speculative.draft.n_max) X(speculative.draft.n_min) X(speculative.draft.p_split) X(speculative.draft.p_min)
    X(speculative.draft.n_gpu_layers) X(speculative.ngram_simple.size_n) X(speculative.ngram_simple.size_m)
    X(speculative.ngram_simple.min_hits) X(speculative.ngram_mod.n_match) X(speculative.ngram_mod.n_max)
    X(speculative.ngram_mod.n_min)
#undef X
    f("model", p.model.path);
    f("speculative.draft.model", p.speculative.draft.mparams.path);
}

inline std::vector<std::string> field_names(common_params & p) {
    std::vector<std::string> names;
    for_each_field(p, [&](const char * name, auto &) { names.push_back(name); });
    return names;
}

// False when there is no such field.
inline bool get_field(common_params & p, const std::string & wanted, field_value & value) {
    bool found = false;
    for_each_field(p, [&](const char * name, auto & field) {
        if (wanted == name) {
            read_field(field, value);
            found = true;
        }
    });
    return found;
}

inline void set_field(common_params & p, const std::string & wanted, const field_value & value) {
    for_each_field(p, [&](const char * name, auto & field) {
        if (wanted == name) {
            write_field(field, value);
        }
    });
}

inline std::vector<std::string> get_samplers(const common_params_sampling & s) {
    std::vector<std::string> names;
    for (auto type : s.samplers) {
        names.push_back(common_sampler_type_to_str(type));
    }
    return names;
}

inline size_t set_samplers(common_params_sampling & s, const std::vector<std::string> & names) {
    s.samplers = common_sampler_types_from_names(names);
    return s.samplers.size();
}

inline std::vector<std::string> get_speculative_types(const common_params & p) {
    std::vector<std::string> names;
    for (auto type : p.speculative.types) {
        names.push_back(common_speculative_type_to_str(type));
    }
    return names;
}

// Throws std::invalid_argument for an unknown name.
inline void set_speculative_types(common_params & p, const std::vector<std::string> & names) {
    p.speculative.types = common_speculative_types_from_names(names);
}

inline void set_grammar(common_params_sampling & s, const std::string & grammar) {
    s.grammar = grammar.empty() ? common_grammar() : common_grammar(COMMON_GRAMMAR_TYPE_USER, grammar);
}

inline std::string schema_to_grammar(const std::string & schema) {
    return json_schema_to_grammar(common_json::parse(schema), true);
}

// The messages of `common` itself have no callback; its errors reach us as return codes and exceptions.
inline void silence_common_log() { common_log_pause(common_log_main()); }

// ------------------------------------------------------------------------------------- speculative
// common_speculative with what its calls point to.
struct speculative {
    common_params_speculative                      params;
    common_speculative *                           handle = nullptr;
    std::map<llama_seq_id, std::vector<llama_token>> prompts, drafts;

    ~speculative() { common_speculative_free(handle); }

    bool init(const std::vector<std::string> & types, const common_params & base, llama_context * target,
              llama_context * draft, uint32_t n_seq) {
        params               = base.speculative;
        params.types         = common_speculative_types_from_names(types);
        params.draft.ctx_tgt = target;
        params.draft.ctx_dft = draft;
        handle               = common_speculative_init(params, n_seq);
        return handle != nullptr;
    }

    void begin(llama_seq_id seq_id, const std::vector<llama_token> & prompt) {
        prompts[seq_id] = prompt;
        common_speculative_begin(handle, seq_id, prompts[seq_id]);
    }

    bool process(const llama_batch & batch) {
        common_batch entries(params.draft.ctx_tgt);
        for (int32_t i = 0; i < batch.n_tokens; ++i) {
            const std::vector<llama_seq_id> seq_ids(batch.seq_id[i], batch.seq_id[i] + batch.n_seq_id[i]);
            entries.add(batch.token[i], batch.pos[i], seq_ids, batch.logits[i]);
        }
        return common_speculative_process(handle, entries);
    }

    const std::vector<llama_token> & draft(llama_seq_id seq_id, const std::vector<llama_token> & prompt,
                                           llama_token id_last, int32_t n_max) {
        prompts[seq_id] = prompt;
        drafts[seq_id].clear();
        auto & p   = common_speculative_get_draft_params(handle, seq_id);
        p.drafting = true;
        p.n_max    = n_max;
        p.pos0     = (llama_pos) prompt.size();
        p.id_last  = id_last;
        p.prompt   = &prompts[seq_id];
        p.result   = &drafts[seq_id];
        common_speculative_draft(handle);
        return drafts[seq_id];
    }

    void accept(llama_seq_id seq_id, uint16_t n_accepted) { common_speculative_accept(handle, seq_id, n_accepted); }
};

} // namespace cyllama
