// State of the native layer that must not need the GIL. Compiled into cyllama._native._core only.
#pragma once

#include "shim_exceptions.hpp"

#include "ggml.h"
#include "ggml-backend.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>

namespace cyllama {

// ------------------------------------------------------------------------------------------ the log
constexpr size_t LOG_KEPT = 8; // warnings and errors kept for each thread

inline std::atomic<int> & log_threshold() {
    static std::atomic<int> level{GGML_LOG_LEVEL_CONT + 1}; // nothing reaches Python
    return level;
}

struct log_line {
    std::string    text;
    ggml_log_level level = GGML_LOG_LEVEL_NONE;
};

struct thread_log {
    log_line                current;
    std::deque<std::string> kept;
};

inline thread_log & this_thread_log() {
    static thread_local thread_log log;
    return log;
}

// Joins continuations. True when `line` holds a whole line that Python wants to see.
inline bool log_append(ggml_log_level level, const char * text, log_line & line) {
    thread_log & log = this_thread_log();
    if (level != GGML_LOG_LEVEL_CONT) {
        log.current.level = level;
    }
    log.current.text += text;
    if (log.current.text.empty() || log.current.text.back() != '\n') {
        if (log.current.text.size() < 16384) {
            return false;
        }
    }
    while (!log.current.text.empty() && (log.current.text.back() == '\n' || log.current.text.back() == '\r')) {
        log.current.text.pop_back();
    }
    line = std::move(log.current);
    log.current = log_line{};
    if (line.text.empty()) {
        return false;
    }
    if (line.level == GGML_LOG_LEVEL_WARN || line.level == GGML_LOG_LEVEL_ERROR) {
        log.kept.push_back(line.text);
        if (log.kept.size() > LOG_KEPT) {
            log.kept.pop_front();
        }
    }
    return line.level >= log_threshold().load(std::memory_order_relaxed);
}

inline void log_clear() { this_thread_log().kept.clear(); }

inline size_t log_size() { return this_thread_log().kept.size(); }

inline std::string log_get(size_t i) { return this_thread_log().kept.at(i); }

// ------------------------------------------------------------------------------- failed assertions
inline void throw_on_abort(const char * message) { throw std::runtime_error(std::string(ABORT_PREFIX) + message); }

inline void install_abort_callback() { ggml_set_abort_callback(throw_on_abort); }

inline void provoke_assertion() { GGML_ASSERT(false && "provoked on purpose"); }

inline void assert_in_thread(ggml_tensor *, const ggml_tensor *, int ith, int nth, void * thread) {
    GGML_ASSERT(ith != std::min(*static_cast<int *>(thread), nth - 1) && "provoked on purpose");
}

// Computes a graph of `n_threads` threads in which an assertion fails in thread `ith`, or in the last one.
inline void provoke_assertion_in_graph(int n_threads, int ith) {
    const std::unique_ptr<ggml_backend, void (*)(ggml_backend_t)> backend(
        ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr), ggml_backend_free);
    const auto registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
    reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads"))(backend.get(), n_threads);
    const std::unique_ptr<ggml_context, void (*)(ggml_context *)> context(
        ggml_init({64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}), ggml_free);
    ggml_cgraph * graph = ggml_new_graph(context.get());
    ggml_tensor * a = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1024);
    a = ggml_sqr(context.get(), a);
    a = ggml_map_custom1(context.get(), a, assert_in_thread, GGML_N_TASKS_MAX, &ith);
    ggml_build_forward_expand(graph, ggml_sqr(context.get(), a));
    const std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer_t)> buffer(
        ggml_backend_alloc_ctx_tensors(context.get(), backend.get()), ggml_backend_buffer_free);
    ggml_backend_graph_compute(backend.get(), graph);
}

// ------------------------------------------------------------------------------------------ clock
inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// -------------------------------------------------------------------------------- end of the process
// Ends the process without destructors: a thread still uses what they free.
inline void skip_destructors() {
#ifdef __GLIBC__
    on_exit([](int status, void *) { fflush(nullptr); _exit(status); }, nullptr);
#endif
}

// --------------------------------------------------------------------------------------- libraries
// Why a library cannot be loaded, or an empty string.
inline std::string load_error(const char * path) {
    void * handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (!handle) {
        return dlerror();
    }
    dlclose(handle);
    return "";
}

// The file that holds the function at `address`.
inline std::string file_of_address(void * address) {
    Dl_info info;
    return dladdr(address, &info) && info.dli_fname ? info.dli_fname : "";
}

} // namespace cyllama
