# mtmd.h, mtmd-helper.h: all public functions that are not deprecated, in upstream's order.
#
# Where C has a function and an enum or struct of one name, the function is called mtmd_get_NAME here.
from libc.stdint cimport int32_t, int64_t, uint32_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama._native.libggml cimport (
    ggml_backend_dev_t,
    ggml_backend_sched_eval_callback,
    ggml_log_callback,
)
from cyllama.llama.libllama cimport (
    llama_context,
    llama_flash_attn_type,
    llama_model,
    llama_pos,
    llama_seq_id,
    llama_token,
)


cdef extern from "mtmd.h" nogil:
    cdef enum mtmd_input_chunk_type:
        MTMD_INPUT_CHUNK_TYPE_TEXT
        MTMD_INPUT_CHUNK_TYPE_IMAGE
        MTMD_INPUT_CHUNK_TYPE_AUDIO

    cdef struct mtmd_context:
        pass
    cdef struct mtmd_bitmap:
        pass
    cdef struct mtmd_image_tokens:
        pass
    cdef struct mtmd_input_chunk:
        pass
    cdef struct mtmd_input_chunks:
        pass
    cdef struct mtmd_batch:
        pass

    cdef struct mtmd_input_text:
        const char * text
        size_t text_len
        bool add_special
        bool parse_special

    cdef struct mtmd_input_part:
        const mtmd_input_text * text
        const mtmd_bitmap * bitmap

    ctypedef bool (* mtmd_progress_callback)(float progress, void * user_data) noexcept nogil

    cdef struct mtmd_context_params:
        bool use_gpu
        ggml_backend_dev_t device
        bool print_timings
        int n_threads
        const char * media_marker
        llama_flash_attn_type flash_attn_type
        bool warmup
        int image_min_tokens
        int image_max_tokens
        ggml_backend_sched_eval_callback cb_eval
        void * cb_eval_user_data
        int32_t batch_max_tokens
        mtmd_progress_callback progress_callback
        void * progress_callback_user_data

    const char * mtmd_default_marker() noexcept
    mtmd_context_params mtmd_context_params_default() noexcept
    mtmd_context * mtmd_init_from_file(
        const char * mmproj_fname, const llama_model * text_model,
        const mtmd_context_params ctx_params) except +translate_exception
    void mtmd_free(mtmd_context * ctx) noexcept
    bool mtmd_decode_use_non_causal(
        const mtmd_context * ctx, const mtmd_input_chunk * chunk) except +translate_exception
    bool mtmd_decode_use_mrope(const mtmd_context * ctx) noexcept
    bool mtmd_support_vision(const mtmd_context * ctx) noexcept
    bool mtmd_support_audio(const mtmd_context * ctx) noexcept
    int mtmd_get_audio_sample_rate(const mtmd_context * ctx) noexcept
    const char * mtmd_get_marker(const mtmd_context * ctx) noexcept
    mtmd_bitmap * mtmd_bitmap_init(uint32_t nx, uint32_t ny, const unsigned char * data) except +translate_exception
    mtmd_bitmap * mtmd_bitmap_init_from_audio(size_t n_samples, const float * data) except +translate_exception
    uint32_t mtmd_bitmap_get_nx(const mtmd_bitmap * bitmap) noexcept
    uint32_t mtmd_bitmap_get_ny(const mtmd_bitmap * bitmap) noexcept
    const unsigned char * mtmd_bitmap_get_data(const mtmd_bitmap * bitmap) noexcept
    size_t mtmd_bitmap_get_n_bytes(const mtmd_bitmap * bitmap) noexcept
    bool mtmd_bitmap_is_audio(const mtmd_bitmap * bitmap) noexcept
    void mtmd_bitmap_free(mtmd_bitmap * bitmap) noexcept
    const char * mtmd_bitmap_get_id(const mtmd_bitmap * bitmap) noexcept
    void mtmd_bitmap_set_id(mtmd_bitmap * bitmap, const char * id) except +translate_exception
    void mtmd_bitmap_set_mergeable(mtmd_bitmap * bitmap, bool mergeable) noexcept
    ctypedef int (* mtmd_bitmap_lazy_callback)(
        size_t chunk_idx, void * user_data, mtmd_bitmap ** out_bitmap, char ** out_text) noexcept nogil
    mtmd_bitmap * mtmd_bitmap_init_lazy(
        const mtmd_context * ctx, const char * id, void * user_data,
        mtmd_bitmap_lazy_callback callback) except +translate_exception
    mtmd_input_chunks * mtmd_input_chunks_init() except +translate_exception
    size_t mtmd_input_chunks_size(const mtmd_input_chunks * chunks) noexcept
    const mtmd_input_chunk * mtmd_input_chunks_get(const mtmd_input_chunks * chunks, size_t idx) noexcept
    void mtmd_input_chunks_free(mtmd_input_chunks * chunks) noexcept
    mtmd_input_chunk_type mtmd_input_chunk_get_type(const mtmd_input_chunk * chunk) noexcept
    const llama_token * mtmd_input_chunk_get_tokens_text(
        const mtmd_input_chunk * chunk, size_t * n_tokens_output) noexcept
    const mtmd_image_tokens * mtmd_input_chunk_get_tokens_image(const mtmd_input_chunk * chunk) noexcept
    size_t mtmd_input_chunk_get_n_tokens(const mtmd_input_chunk * chunk) except +translate_exception
    const char * mtmd_input_chunk_get_id(const mtmd_input_chunk * chunk) noexcept
    llama_pos mtmd_input_chunk_get_n_pos(const mtmd_input_chunk * chunk) except +translate_exception
    mtmd_input_chunk * mtmd_input_chunk_copy(const mtmd_input_chunk * chunk) except +translate_exception
    void mtmd_input_chunk_free(mtmd_input_chunk * chunk) noexcept
    mtmd_input_chunk * mtmd_input_chunk_get_placeholder(const mtmd_input_chunk * chunk) except +translate_exception
    int32_t mtmd_input_chunk_save(
        const mtmd_input_chunk * chunk, char * out_buf, size_t out_len,
        size_t * expected_out_len) except +translate_exception
    mtmd_input_chunk * mtmd_input_chunk_load(const char * buf, size_t len) except +translate_exception
    size_t mtmd_image_tokens_get_n_tokens(const mtmd_image_tokens * image_tokens) except +translate_exception
    const char * mtmd_image_tokens_get_id(const mtmd_image_tokens * image_tokens) noexcept
    llama_pos mtmd_image_tokens_get_n_pos(const mtmd_image_tokens * image_tokens) except +translate_exception

    cdef struct mtmd_decoder_pos:
        uint32_t t
        uint32_t x
        uint32_t y
        uint32_t z

    mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(
        const mtmd_image_tokens * image_tokens, llama_pos pos_0, size_t i) except +translate_exception
    int32_t mtmd_tokenize(
        const mtmd_context * ctx, mtmd_input_chunks * output, const mtmd_input_text * text,
        const mtmd_bitmap * const * bitmaps, size_t n_bitmaps) except +translate_exception
    int32_t mtmd_tokenize_from_parts(
        const mtmd_context * ctx, mtmd_input_chunks * output, const mtmd_input_part * const * parts, size_t n_parts,
        bool add_special) except +translate_exception
    int32_t mtmd_encode_chunk(mtmd_context * ctx, const mtmd_input_chunk * chunk) except +translate_exception
    float * mtmd_get_output_embd(mtmd_context * ctx) noexcept
    mtmd_batch * mtmd_batch_init(mtmd_context * ctx) except +translate_exception
    void mtmd_batch_free(mtmd_batch * batch) noexcept
    int32_t mtmd_batch_add_chunk(mtmd_batch * batch, const mtmd_input_chunk * chunk) except +translate_exception
    int32_t mtmd_batch_encode(mtmd_batch * batch) except +translate_exception
    float * mtmd_batch_get_output_embd(mtmd_batch * batch, const mtmd_input_chunk * chunk) except +translate_exception

    cdef struct mtmd_caps:
        bool inp_vision
        bool inp_audio

    mtmd_caps mtmd_get_cap_from_file(const char * mmproj_fname) except +translate_exception

    cdef enum mtmd_gen_audio_type:
        MTMD_GEN_AUDIO_TYPE_NONE
        MTMD_GEN_AUDIO_TYPE_QWEN3TTS
        MTMD_GEN_AUDIO_TYPE_POCKETTTS

    cdef struct mtmd_gen_audio_info:
        mtmd_gen_audio_type type
        int32_t sample_rate
        const char * model_variant

    mtmd_gen_audio_info mtmd_gen_audio_get_info(const mtmd_context * ctx) noexcept

    cdef enum mtmd_gen_process_type:
        MTMD_GEN_PROCESS_TYPE_GEN_CODE
        MTMD_GEN_PROCESS_TYPE_GEN_WAV

    cdef struct mtmd_gen_inp:
        mtmd_gen_process_type type
        int32_t code0
        float * embd
        int32_t top_k
        float top_p
        uint32_t seed
        float temp
        int32_t * codes
        size_t n_codes
        const float * feats
        size_t n_feats
        const char * state_data
        size_t state_size

    cdef struct mtmd_gen_out:
        const int32_t * codes
        size_t n_codes
        const float * feats
        size_t n_feats
        const float * embd
        bool is_eos
        const float * audio
        size_t n_samples
        const char * state_data
        size_t state_size

    mtmd_gen_inp mtmd_gen_inp_default(const mtmd_context * ctx) noexcept
    int32_t mtmd_gen_audio_process(
        mtmd_context * ctx, const mtmd_gen_inp * inp, mtmd_gen_out * out) except +translate_exception


cdef extern from "mtmd-helper.h" nogil:
    cdef struct mtmd_helper_video:
        pass

    cdef struct mtmd_helper_video_init_params:
        float fps_target
        const char * ffmpeg_bin_dir
        int64_t timestamp_interval_ms

    mtmd_helper_video_init_params mtmd_helper_video_init_params_default() noexcept

    cdef struct mtmd_helper_init_opt:
        mtmd_helper_video_init_params video_params

    mtmd_helper_init_opt mtmd_helper_init_opt_default() noexcept
    void mtmd_helper_log_set(ggml_log_callback log_callback, void * user_data) noexcept
    bool mtmd_helper_support_video(const mtmd_context * ctx) noexcept

    cdef struct mtmd_helper_bitmap_wrapper:
        mtmd_bitmap * bitmap
        mtmd_helper_video * video_ctx

    mtmd_helper_bitmap_wrapper mtmd_helper_bitmap_init_from_file(
        const mtmd_context * ctx, const char * fname, bool placeholder,
        mtmd_helper_init_opt opt) except +translate_exception
    mtmd_helper_bitmap_wrapper mtmd_helper_bitmap_init_from_buf(
        const mtmd_context * ctx, const unsigned char * buf, size_t len, bool placeholder,
        mtmd_helper_init_opt opt) except +translate_exception
    size_t mtmd_helper_get_n_tokens(const mtmd_input_chunks * chunks) except +translate_exception
    llama_pos mtmd_helper_get_n_pos(const mtmd_input_chunks * chunks) except +translate_exception
    void mtmd_helper_image_get_decoder_pos(
        const mtmd_image_tokens * image, llama_pos pos_0, mtmd_decoder_pos * out_pos) except +translate_exception
    int32_t mtmd_helper_eval_chunks(
        mtmd_context * ctx, llama_context * lctx, const mtmd_input_chunks * chunks, llama_pos n_past,
        llama_seq_id seq_id, int32_t n_batch, bool logits_last, llama_pos * new_n_past) except +translate_exception
    int32_t mtmd_helper_eval_chunk_single(
        mtmd_context * ctx, llama_context * lctx, const mtmd_input_chunk * chunk, llama_pos n_past,
        llama_seq_id seq_id, int32_t n_batch, bool logits_last, llama_pos * new_n_past) except +translate_exception

    cdef struct mtmd_helper_embd_batch:
        int32_t n_tokens
        const float * embd
        int32_t n_embd
        const llama_pos * pos
        int32_t n_pos
        llama_seq_id seq_id

    ctypedef int32_t (* mtmd_helper_post_decode_callback)(
        const mtmd_helper_embd_batch * batch, void * user_data) noexcept nogil
    int32_t mtmd_helper_decode_image_chunk(
        mtmd_context * ctx, llama_context * lctx, const mtmd_input_chunk * chunk, float * encoded_embd,
        llama_pos n_past, llama_seq_id seq_id, int32_t n_batch, llama_pos * new_n_past,
        mtmd_helper_post_decode_callback callback, void * user_data) except +translate_exception

    cdef struct mtmd_helper_video_info:
        uint32_t width
        uint32_t height
        float fps
        int32_t n_frames

    mtmd_helper_video * mtmd_helper_video_init(
        const mtmd_context * mctx, const char * path,
        mtmd_helper_video_init_params params) except +translate_exception
    mtmd_helper_video * mtmd_helper_video_init_from_buf(
        const mtmd_context * mctx, const unsigned char * buf, size_t len,
        mtmd_helper_video_init_params params) except +translate_exception
    void mtmd_helper_video_free(mtmd_helper_video * ctx) noexcept
    mtmd_helper_video_info mtmd_helper_video_get_info(const mtmd_helper_video * ctx) except +translate_exception
    int32_t mtmd_helper_video_read_next(
        mtmd_helper_video * ctx, mtmd_bitmap ** out_bitmap, char ** out_text) except +translate_exception
    bool mtmd_helper_model_can_chat(
        const llama_context * lctx, const mtmd_context * mctx) except +translate_exception

    cdef struct mtmd_helper_gen_audio:
        pass

    cdef enum mtmd_helper_gen_audio_outtype:
        MTMD_HELPER_GEN_AUDIO_OUTTYPE_PCM
        MTMD_HELPER_GEN_AUDIO_OUTTYPE_WAV

    cdef struct mtmd_helper_gen_audio_inp:
        llama_seq_id seq_id
        const char * prompt
        size_t prompt_len
        mtmd_bitmap * speaker_ref
        const char * lang
        int32_t top_k
        float top_p
        uint32_t seed
        mtmd_helper_gen_audio_outtype out_type

    mtmd_helper_gen_audio * mtmd_helper_gen_audio_init(
        llama_context * lctx, mtmd_context * mctx) except +translate_exception
    void mtmd_helper_gen_audio_free(mtmd_helper_gen_audio * ctx) noexcept
    void mtmd_helper_gen_audio_reset(mtmd_helper_gen_audio * ctx) except +translate_exception
    int32_t mtmd_helper_gen_audio_set_input(
        mtmd_helper_gen_audio * ctx, const mtmd_helper_gen_audio_inp * inp) except +translate_exception
    int32_t mtmd_helper_gen_audio_step_prompt(
        mtmd_helper_gen_audio * ctx, int32_t n_batch) except +translate_exception
    int32_t mtmd_helper_gen_audio_step_gen(
        mtmd_helper_gen_audio * ctx, llama_token sampled, const float * h_state_in, const float ** h_state_out,
        bool * out_stop) except +translate_exception
    int32_t mtmd_helper_gen_audio_get_output(
        mtmd_helper_gen_audio * ctx, int32_t * out_sample_rate, const char ** out_data, size_t * out_data_len,
        int64_t * out_n_samples) except +translate_exception
