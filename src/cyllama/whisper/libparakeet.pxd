# The used part of parakeet.h, in upstream's order.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama._native.libggml cimport ggml_abort_callback, ggml_log_callback


cdef extern from "parakeet.h" nogil:
    const int PARAKEET_SAMPLE_RATE
    const int PARAKEET_HOP_LENGTH

    cdef struct parakeet_context:
        pass
    cdef struct parakeet_state:
        pass

    ctypedef int32_t parakeet_token

    cdef struct parakeet_context_params:
        bool use_gpu
        int gpu_device

    ctypedef struct parakeet_token_data:
        parakeet_token id
        int duration_idx
        int duration_value
        int frame_index
        float p
        float plog
        int64_t t0
        int64_t t1
        bool is_word_start

    ctypedef struct parakeet_model_loader:
        pass

    parakeet_context * parakeet_init_with_params_no_state(
        parakeet_model_loader * loader, parakeet_context_params params) except +translate_exception
    parakeet_state * parakeet_init_state(parakeet_context * ctx) except +translate_exception
    void parakeet_free(parakeet_context * ctx) noexcept
    void parakeet_free_state(parakeet_state * state) noexcept
    int parakeet_pcm_to_mel_with_state(
        parakeet_context * ctx, parakeet_state * state, const float * samples, int n_samples,
        int n_threads) except +translate_exception
    int parakeet_set_mel_with_state(
        parakeet_context * ctx, parakeet_state * state, const float * data, int n_len,
        int n_mel) except +translate_exception
    int parakeet_tokenize(
        parakeet_context * ctx, const char * text, parakeet_token * tokens,
        int n_max_tokens) except +translate_exception
    int parakeet_n_len_from_state(parakeet_state * state) noexcept
    int parakeet_n_vocab(parakeet_context * ctx) noexcept
    int parakeet_n_audio_ctx(parakeet_context * ctx) noexcept
    int parakeet_model_n_audio_state(parakeet_context * ctx) noexcept
    int parakeet_model_n_audio_head(parakeet_context * ctx) noexcept
    int parakeet_model_n_audio_layer(parakeet_context * ctx) noexcept
    int parakeet_model_n_mels(parakeet_context * ctx) noexcept
    int parakeet_model_ftype(parakeet_context * ctx) noexcept
    const char * parakeet_token_to_str(parakeet_context * ctx, parakeet_token token) except +translate_exception
    int parakeet_token_to_text(
        const char * token_str, bool is_first, char * output, int max_len) except +translate_exception
    parakeet_token parakeet_token_blank(parakeet_context * ctx) noexcept
    parakeet_token parakeet_token_unk(parakeet_context * ctx) noexcept
    parakeet_token parakeet_token_bos(parakeet_context * ctx) noexcept

    cdef enum parakeet_sampling_strategy:
        PARAKEET_SAMPLING_GREEDY

    ctypedef void (* parakeet_new_token_callback)(
        parakeet_context * ctx, parakeet_state * state, const parakeet_token_data * token_data,
        void * user_data) noexcept
    ctypedef void (* parakeet_new_segment_callback)(
        parakeet_context * ctx, parakeet_state * state, int n_new, void * user_data) noexcept
    ctypedef void (* parakeet_progress_callback)(
        parakeet_context * ctx, parakeet_state * state, int progress, void * user_data) noexcept
    ctypedef bool (* parakeet_encoder_begin_callback)(
        parakeet_context * ctx, parakeet_state * state, void * user_data) noexcept

    cdef struct parakeet_full_params:
        int n_threads
        bool no_context
        int audio_ctx
        parakeet_new_segment_callback new_segment_callback
        void * new_segment_callback_user_data
        parakeet_new_token_callback new_token_callback
        void * new_token_callback_user_data
        parakeet_progress_callback progress_callback
        void * progress_callback_user_data
        parakeet_encoder_begin_callback encoder_begin_callback
        void * encoder_begin_callback_user_data
        ggml_abort_callback abort_callback
        void * abort_callback_user_data

    parakeet_context_params parakeet_context_default_params() noexcept
    parakeet_full_params parakeet_full_default_params(parakeet_sampling_strategy strategy) noexcept
    int parakeet_full_with_state(
        parakeet_context * ctx, parakeet_state * state, parakeet_full_params params, const float * samples,
        int n_samples) except +translate_exception
    int parakeet_full_n_segments_from_state(parakeet_state * state) noexcept
    int64_t parakeet_full_get_segment_t0_from_state(parakeet_state * state, int i_segment) noexcept
    int64_t parakeet_full_get_segment_t1_from_state(parakeet_state * state, int i_segment) noexcept
    const char * parakeet_full_get_segment_text_from_state(parakeet_state * state, int i_segment) noexcept
    int parakeet_full_n_tokens_from_state(parakeet_state * state, int i_segment) noexcept
    const char * parakeet_full_get_token_text_from_state(
        parakeet_context * ctx, parakeet_state * state, int i_segment, int i_token) except +translate_exception
    parakeet_token parakeet_full_get_token_id_from_state(parakeet_state * state, int i_segment, int i_token) noexcept
    parakeet_token_data parakeet_full_get_token_data_from_state(
        parakeet_state * state, int i_segment, int i_token) noexcept
    float parakeet_full_get_token_p_from_state(parakeet_state * state, int i_segment, int i_token) noexcept
    void parakeet_log_set(ggml_log_callback log_callback, void * user_data) noexcept
