// State of the native layer that must not need the GIL. Compiled into cyllama._native._core only.
#pragma once

#include "shim_exceptions.hpp"

#include "ggml.h"

#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <deque>
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

// ------------------------------------------------------------------------------------------ clock
inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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
