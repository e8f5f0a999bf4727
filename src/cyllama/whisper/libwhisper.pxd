# The used part of whisper.h, in upstream's order.
from libc.stdint cimport int32_t, int64_t, uint32_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama._native.libggml cimport ggml_abort_callback, ggml_log_callback


cdef extern from "whisper.h" nogil:
    const int WHISPER_SAMPLE_RATE
    const int WHISPER_N_FFT
    const int WHISPER_HOP_LENGTH
    const int WHISPER_CHUNK_SIZE

    cdef struct whisper_context:
        pass
    cdef struct whisper_state:
        pass
    cdef struct whisper_group:
        pass

    ctypedef int32_t whisper_token
    cdef enum whisper_alignment_heads_preset:
        WHISPER_AHEADS_NONE
        WHISPER_AHEADS_N_TOP_MOST
        WHISPER_AHEADS_CUSTOM
        WHISPER_AHEADS_TINY_EN
        WHISPER_AHEADS_TINY
        WHISPER_AHEADS_BASE_EN
        WHISPER_AHEADS_BASE
        WHISPER_AHEADS_SMALL_EN
        WHISPER_AHEADS_SMALL
        WHISPER_AHEADS_MEDIUM_EN
        WHISPER_AHEADS_MEDIUM
        WHISPER_AHEADS_LARGE_V1
        WHISPER_AHEADS_LARGE_V2
        WHISPER_AHEADS_LARGE_V3
        WHISPER_AHEADS_LARGE_V3_TURBO

    cdef struct whisper_ahead:
        int n_text_layer
        int n_head

    cdef struct whisper_aheads:
        size_t n_heads
        const whisper_ahead * heads

    cdef struct whisper_context_params:
        bool use_gpu
        bool flash_attn
        int gpu_device
        bool dtw_token_timestamps
        whisper_alignment_heads_preset dtw_aheads_preset
        int dtw_n_top
        whisper_aheads dtw_aheads
        size_t dtw_mem_size

    cdef struct whisper_token_data:
        whisper_token id
        whisper_token tid
        float p
        float plog
        float pt
        float ptsum
        int64_t t0
        int64_t t1
        int64_t t_dtw
        float vlen

    cdef struct whisper_model_loader:
        void * context
        size_t (* read)(void * ctx, void * output, size_t read_size)
        bool (* eof)(void * ctx)
        void (* close)(void * ctx)

    cdef enum whisper_gretype:
        WHISPER_GRETYPE_END
        WHISPER_GRETYPE_ALT
        WHISPER_GRETYPE_RULE_REF
        WHISPER_GRETYPE_CHAR
        WHISPER_GRETYPE_CHAR_NOT
        WHISPER_GRETYPE_CHAR_RNG_UPPER
        WHISPER_GRETYPE_CHAR_ALT

    cdef struct whisper_grammar_element:
        whisper_gretype type
        uint32_t value

    cdef struct whisper_vad_params:
        float threshold
        int min_speech_duration_ms
        int min_silence_duration_ms
        float max_speech_duration_s
        int speech_pad_ms
        float samples_overlap

    const char * whisper_version() noexcept
    whisper_context * whisper_init_with_params_no_state(
        whisper_model_loader * loader, whisper_context_params params) except +translate_exception
    whisper_state * whisper_init_state(whisper_context * ctx) except +translate_exception
    void whisper_set_abort_callback_from_state(
        whisper_state * state, ggml_abort_callback abort_callback, void * user_data) noexcept
    whisper_group * whisper_group_init(whisper_context * ctx, int n_states) except +translate_exception
    void whisper_group_free(whisper_group * group) noexcept
    void whisper_set_group(whisper_state * state, whisper_group * group) noexcept
    void whisper_free(whisper_context * ctx) noexcept
    void whisper_free_state(whisper_state * state) noexcept
    int whisper_pcm_to_mel_with_state(
        whisper_context * ctx, whisper_state * state, const float * samples, int n_samples,
        int n_threads) except +translate_exception
    int whisper_set_mel_with_state(
        whisper_context * ctx, whisper_state * state, const float * data, int n_len,
        int n_mel) except +translate_exception
    int whisper_encode_with_state(
        whisper_context * ctx, whisper_state * state, int offset, int n_threads) except +translate_exception
    int whisper_decode_with_state(
        whisper_context * ctx, whisper_state * state, const whisper_token * tokens, int n_tokens, int n_past,
        int n_threads) except +translate_exception
    int whisper_lang_max_id() noexcept
    int whisper_lang_id(const char * lang) except +translate_exception
    const char * whisper_lang_str(int id) noexcept
    const char * whisper_lang_str_full(int id) noexcept
    int whisper_lang_auto_detect_with_state(
        whisper_context * ctx, whisper_state * state, int offset_ms, int n_threads,
        float * lang_probs) except +translate_exception
    int whisper_n_len_from_state(whisper_state * state) noexcept
    int whisper_n_vocab(whisper_context * ctx) noexcept
    int whisper_n_text_ctx(whisper_context * ctx) noexcept
    int whisper_n_audio_ctx(whisper_context * ctx) noexcept
    int whisper_is_multilingual(whisper_context * ctx) noexcept
    int whisper_model_n_audio_state(whisper_context * ctx) noexcept
    int whisper_model_n_audio_head(whisper_context * ctx) noexcept
    int whisper_model_n_audio_layer(whisper_context * ctx) noexcept
    int whisper_model_n_text_state(whisper_context * ctx) noexcept
    int whisper_model_n_text_head(whisper_context * ctx) noexcept
    int whisper_model_n_text_layer(whisper_context * ctx) noexcept
    int whisper_model_n_mels(whisper_context * ctx) noexcept
    int whisper_model_ftype(whisper_context * ctx) noexcept
    int whisper_model_type(whisper_context * ctx) noexcept
    float * whisper_get_logits_from_state(whisper_state * state) noexcept
    const char * whisper_token_to_str(whisper_context * ctx, whisper_token token) except +translate_exception
    const char * whisper_model_type_readable(whisper_context * ctx) noexcept
    whisper_token whisper_token_eot(whisper_context * ctx) noexcept
    whisper_token whisper_token_sot(whisper_context * ctx) noexcept
    whisper_token whisper_token_solm(whisper_context * ctx) noexcept
    whisper_token whisper_token_prev(whisper_context * ctx) noexcept
    whisper_token whisper_token_nosp(whisper_context * ctx) noexcept
    whisper_token whisper_token_not(whisper_context * ctx) noexcept
    whisper_token whisper_token_beg(whisper_context * ctx) noexcept
    whisper_token whisper_token_lang(whisper_context * ctx, int lang_id) noexcept
    whisper_token whisper_token_translate(whisper_context * ctx) noexcept
    whisper_token whisper_token_transcribe(whisper_context * ctx) noexcept
    cdef struct whisper_timings:
        float sample_ms
        float encode_ms
        float decode_ms
        float batchd_ms
        float prompt_ms
    whisper_timings whisper_get_timings_from_state(whisper_state * state) noexcept
    void whisper_reset_timings_from_state(whisper_state * state) noexcept
    const char * whisper_print_system_info() except +translate_exception

    cdef enum whisper_sampling_strategy:
        WHISPER_SAMPLING_GREEDY
        WHISPER_SAMPLING_BEAM_SEARCH

    ctypedef void (* whisper_new_segment_callback)(
        whisper_context * ctx, whisper_state * state, int n_new, void * user_data) noexcept nogil
    ctypedef void (* whisper_progress_callback)(
        whisper_context * ctx, whisper_state * state, int progress, void * user_data) noexcept nogil
    ctypedef bool (* whisper_encoder_begin_callback)(
        whisper_context * ctx, whisper_state * state, void * user_data) noexcept nogil
    ctypedef void (* whisper_logits_filter_callback)(
        whisper_context * ctx, whisper_state * state, const whisper_token_data * tokens, int n_tokens, float * logits,
        void * user_data) noexcept nogil

    cdef struct whisper_full_greedy "decltype(whisper_full_params::greedy)":
        int best_of

    cdef struct whisper_full_beam_search "decltype(whisper_full_params::beam_search)":
        int beam_size

    cdef struct whisper_full_params:
        whisper_sampling_strategy strategy
        int n_threads
        int n_max_text_ctx
        int offset_ms
        int duration_ms
        bool translate
        bool no_context
        bool no_timestamps
        bool single_segment
        bool print_special
        bool token_timestamps
        float thold_pt
        float thold_ptsum
        int max_len
        bool split_on_word
        int max_tokens
        int audio_ctx
        bool tdrz_enable
        const char * initial_prompt
        bool carry_initial_prompt
        const whisper_token * prompt_tokens
        int prompt_n_tokens
        const char * language
        bool detect_language
        bool suppress_blank
        bool suppress_nst
        float temperature
        float max_initial_ts
        float length_penalty
        float temperature_inc
        float entropy_thold
        float logprob_thold
        float no_speech_thold
        whisper_full_greedy greedy
        whisper_full_beam_search beam_search
        whisper_new_segment_callback new_segment_callback
        void * new_segment_callback_user_data
        whisper_progress_callback progress_callback
        void * progress_callback_user_data
        whisper_encoder_begin_callback encoder_begin_callback
        void * encoder_begin_callback_user_data
        whisper_logits_filter_callback logits_filter_callback
        void * logits_filter_callback_user_data
        const whisper_grammar_element ** grammar_rules
        size_t n_grammar_rules
        size_t i_start_rule
        float grammar_penalty

    whisper_context_params whisper_context_default_params() noexcept
    whisper_full_params whisper_full_default_params(whisper_sampling_strategy strategy) noexcept
    int whisper_full_with_state(
        whisper_context * ctx, whisper_state * state, whisper_full_params params, const float * samples,
        int n_samples) except +translate_exception
    int whisper_full_n_segments_from_state(whisper_state * state) noexcept
    int whisper_full_lang_id_from_state(whisper_state * state) noexcept
    int64_t whisper_full_get_segment_t0_from_state(whisper_state * state, int i_segment) noexcept
    int64_t whisper_full_get_segment_t1_from_state(whisper_state * state, int i_segment) noexcept
    bool whisper_full_get_segment_speaker_turn_next_from_state(whisper_state * state, int i_segment) noexcept
    const char * whisper_full_get_segment_text_from_state(whisper_state * state, int i_segment) noexcept
    int whisper_full_n_tokens_from_state(whisper_state * state, int i_segment) noexcept
    const char * whisper_full_get_token_text_from_state(
        whisper_context * ctx, whisper_state * state, int i_segment, int i_token) noexcept
    whisper_token whisper_full_get_token_id_from_state(whisper_state * state, int i_segment, int i_token) noexcept
    whisper_token_data whisper_full_get_token_data_from_state(
        whisper_state * state, int i_segment, int i_token) noexcept
    float whisper_full_get_token_p_from_state(whisper_state * state, int i_segment, int i_token) noexcept

    cdef struct whisper_vad_context:
        pass

    whisper_vad_params whisper_vad_default_params() noexcept
    cdef struct whisper_vad_context_params:
        int n_threads
        bool use_gpu
        int gpu_device

    whisper_vad_context_params whisper_vad_default_context_params() noexcept
    whisper_vad_context * whisper_vad_init_with_params(
        whisper_model_loader * loader, whisper_vad_context_params params) except +translate_exception
    bool whisper_vad_detect_speech(
        whisper_vad_context * vctx, const float * samples, int n_samples) except +translate_exception
    bool whisper_vad_detect_speech_no_reset(
        whisper_vad_context * vctx, const float * samples, int n_samples) except +translate_exception
    void whisper_vad_set_abort_callback(
        whisper_vad_context * vctx, ggml_abort_callback abort_callback, void * user_data) noexcept
    void whisper_vad_reset_state(whisper_vad_context * vctx) except +translate_exception
    int whisper_vad_n_probs(whisper_vad_context * vctx) noexcept
    float * whisper_vad_probs(whisper_vad_context * vctx) noexcept
    cdef struct whisper_vad_segments:
        pass

    whisper_vad_segments * whisper_vad_segments_from_probs(
        whisper_vad_context * vctx, whisper_vad_params params) except +translate_exception
    whisper_vad_segments * whisper_vad_segments_from_samples(
        whisper_vad_context * vctx, whisper_vad_params params, const float * samples,
        int n_samples) except +translate_exception
    int whisper_vad_segments_n_segments(whisper_vad_segments * segments) noexcept
    float whisper_vad_segments_get_segment_t0(whisper_vad_segments * segments, int i_segment) noexcept
    float whisper_vad_segments_get_segment_t1(whisper_vad_segments * segments, int i_segment) noexcept
    void whisper_vad_free_segments(whisper_vad_segments * segments) noexcept
    void whisper_vad_free(whisper_vad_context * ctx) noexcept
    const char * whisper_bench_memcpy_str(int n_threads) except +translate_exception
    const char * whisper_bench_ggml_mul_mat_str(int n_threads) except +translate_exception
    void whisper_log_set(ggml_log_callback log_callback, void * user_data) noexcept
    float whisper_full_get_segment_no_speech_prob_from_state(whisper_state * state, int i_segment) noexcept
    float whisper_full_get_segment_temperature_from_state(whisper_state * state, int i_segment) noexcept
