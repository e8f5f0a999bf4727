# shim_sd.hpp: the engine's calls with their callbacks.
from libc.stdint cimport uint32_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama.sd.libsd cimport (
    preview_t,
    sd_ctx_params_t,
    sd_ctx_t,
    sd_image_t,
    sd_img_gen_params_t,
    sd_type_t,
    sd_vid_gen_params_t,
    upscaler_ctx_t,
)


cdef extern from "shim_sd.hpp" namespace "cyllama" nogil:
    cdef cppclass call_hooks:
        bool (*progress)(int step, int steps, float seconds, void * state) noexcept nogil
        bool (*tiles)(int tile, int tiles, float seconds, void * state) noexcept nogil
        bool (*poll)(void * state) noexcept nogil
        void (*preview)(int step, int count, sd_image_t * frames, bool is_noisy, void * state) noexcept nogil
        void * state
        preview_t preview_mode
        bool preview_denoised
        bool preview_noisy

    sd_ctx_t * load_context(const sd_ctx_params_t * params, call_hooks & hooks) except +translate_exception
    sd_image_t * run_image(sd_ctx_t * ctx, const sd_img_gen_params_t * params,
        call_hooks & hooks) except +translate_exception
    sd_image_t * run_video(sd_ctx_t * ctx, const sd_vid_gen_params_t * params, int * count,
        call_hooks & hooks) except +translate_exception
    upscaler_ctx_t * load_upscaler(const char * path, bool offload_params_to_cpu, bool direct, int n_threads,
        int tile_size, call_hooks & hooks) except +translate_exception
    sd_image_t run_upscale(upscaler_ctx_t * ctx, sd_image_t image, uint32_t factor,
        call_hooks & hooks) except +translate_exception
    bool run_convert(const char * input, const char * vae, const char * output, sd_type_t type, const char * rules,
        bool convert_name, call_hooks & hooks) except +translate_exception
