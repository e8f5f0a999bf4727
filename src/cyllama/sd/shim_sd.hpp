// Binds the engine's callbacks, of which a process has one set, to one call.
//
// The engine has no function that stops a call: a callback throws `stopped` through its C++ frames, and run_bound
// catches it. Cython handles all other exceptions.
#pragma once

#include "shim_exceptions.hpp"

#include "ggml.h"
#include "stable-diffusion.h"

namespace cyllama {

struct stopped {};

// Callbacks written in Cython: each may take the GIL, none throws.
struct call_hooks {
    bool (*progress)(int step, int steps, float seconds, void * state); // false: stop
    bool (*tiles)(int tile, int tiles, float seconds, void * state);    // false: stop; null: report tiles as steps
    bool (*poll)(void * state);                                         // true: stop
    void (*preview)(int step, int count, sd_image_t * frames, bool is_noisy, void * state);
    void *    state;
    preview_t preview_mode;
    bool      preview_denoised;
    bool      preview_noisy;
};

inline void throwing_progress(int step, int steps, float seconds, void * data) {
    const call_hooks * hooks = static_cast<const call_hooks *>(data);
    if (!hooks->progress(step, steps, seconds, hooks->state)) {
        throw stopped{};
    }
}

inline void throwing_tiles(int tile, int tiles, float seconds, void * data) {
    const call_hooks * hooks = static_cast<const call_hooks *>(data);
    if (!hooks->tiles(tile, tiles, seconds, hooks->state)) {
        throw stopped{};
    }
}

// Files that are loaded during generation are not reported as steps, but the call may stop there.
inline void throwing_load(int, int, float, void * data) {
    const call_hooks * hooks = static_cast<const call_hooks *>(data);
    if (hooks->poll(hooks->state)) {
        throw stopped{};
    }
}

inline void forwarded_preview(int step, int count, sd_image_t * frames, bool is_noisy, void * data) {
    const call_hooks * hooks = static_cast<const call_hooks *>(data);
    hooks->preview(step, count, frames, is_noisy, hooks->state);
}

// What the progress callback reports.
enum class progress_of { files, steps };

class bound_hooks {
  public:
    bound_hooks(call_hooks & hooks, progress_of what) {
        sd_set_progress_callback(throwing_progress, &hooks);
        if (what == progress_of::steps) {
            sd_set_load_callback(throwing_load, &hooks);
        }
        if (hooks.tiles != nullptr) {
            sd_set_tile_callback(throwing_tiles, &hooks);
        }
        sd_set_abort_callback(hooks.poll, hooks.state);
        if (hooks.preview_mode != PREVIEW_NONE) {
            sd_set_preview_callback(forwarded_preview, hooks.preview_mode, 1, hooks.preview_denoised,
                                    hooks.preview_noisy, &hooks);
        }
    }

    ~bound_hooks() {
        sd_set_progress_callback(nullptr, nullptr);
        sd_set_load_callback(nullptr, nullptr);
        sd_set_tile_callback(nullptr, nullptr);
        sd_set_abort_callback(nullptr, nullptr);
        sd_set_preview_callback(nullptr, PREVIEW_NONE, 1, true, false, nullptr);
    }

    bound_hooks(const bound_hooks &)             = delete;
    bound_hooks & operator=(const bound_hooks &) = delete;
};

// Runs one call of the engine; returns `nothing` if it was stopped.
template <typename Result, typename Call>
Result run_bound(call_hooks & hooks, progress_of what, Result nothing, Call call) {
    bound_hooks bound(hooks, what);
    try {
        return call();
    } catch (const stopped &) {
        return nothing;
    }
}

inline sd_ctx_t * load_context(const sd_ctx_params_t * params, call_hooks & hooks) {
    return run_bound(hooks, progress_of::files, static_cast<sd_ctx_t *>(nullptr), [&] { return new_sd_ctx(params); });
}

inline sd_image_t * run_image(sd_ctx_t * ctx, const sd_img_gen_params_t * params, call_hooks & hooks) {
    return run_bound(hooks, progress_of::steps, static_cast<sd_image_t *>(nullptr),
                     [&] { return generate_image(ctx, params); });
}

inline sd_image_t * run_video(sd_ctx_t * ctx, const sd_vid_gen_params_t * params, int * count, call_hooks & hooks) {
    return run_bound(hooks, progress_of::steps, static_cast<sd_image_t *>(nullptr),
                     [&] { return generate_video(ctx, params, count); });
}

inline upscaler_ctx_t * load_upscaler(const char * path, bool offload_params_to_cpu, bool direct, int n_threads,
                                      int tile_size, call_hooks & hooks) {
    return run_bound(hooks, progress_of::files, static_cast<upscaler_ctx_t *>(nullptr),
                     [&] { return new_upscaler_ctx(path, offload_params_to_cpu, direct, n_threads, tile_size); });
}

inline sd_image_t run_upscale(upscaler_ctx_t * ctx, sd_image_t image, uint32_t factor, call_hooks & hooks) {
    return run_bound(hooks, progress_of::steps, sd_image_t{0, 0, 0, nullptr},
                     [&] { return upscale(ctx, image, factor); });
}

inline bool run_convert(const char * input, const char * vae, const char * output, sd_type_t type, const char * rules,
                        bool convert_name, call_hooks & hooks) {
    // convert() expects GGML_TYPE_COUNT to keep the type of each tensor. SD_TYPE_COUNT equals it in the engine's own
    // ggml only; in the shared ggml that number is a type.
    if (type == SD_TYPE_COUNT) {
        type = static_cast<sd_type_t>(GGML_TYPE_COUNT);
    }
    return run_bound(hooks, progress_of::files, false,
                     [&] { return convert(input, vae, output, type, rules, convert_name); });
}

} // namespace cyllama
