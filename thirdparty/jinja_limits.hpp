// Limits for chat templates, which come with downloaded models: how deep they are nested, how much they compute, how
// long they are. Patch 22 of llama.cpp calls these functions; a limit that is exceeded is a std::runtime_error.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace cyllama {

class jinja_budget {
  public:
    static constexpr size_t MAX_SOURCE  = 256 * 1024; // bytes of a template
    static constexpr size_t MAX_NESTING = 200;        // of blocks, parentheses and operators in its source
    static constexpr size_t MAX_CALLS   = 1000;       // statements and expressions that run inside of each other
    static constexpr size_t MAX_WORK    = 20'000'000; // of one rendering, or of one load: see charge()

    // A scope: what is computed until its end shares one budget, also in scopes within it.
    explicit jinja_budget(size_t work = MAX_WORK) : outermost(!state().active) {
        if (outermost) {
            state() = {true, work, 0};
        }
    }
    ~jinja_budget() {
        if (outermost) {
            state() = {};
        }
    }
    jinja_budget(const jinja_budget &) = delete;
    jinja_budget & operator=(const jinja_budget &) = delete;

    // Throws if a limit was exceeded in an attempt whose error was caught.
    void check() const {
        if (state().left == 0) {
            exceeded("more steps or levels than are allowed");
        }
    }

    // One unit is a step of the template, an element of a container, or 8 bytes of text.
    static void charge(size_t units) {
        auto & s = state();
        if (!s.active) {
            return;
        }
        if (units >= s.left) {
            exceeded("too many steps");
        }
        s.left -= units;
    }
    static void charge_bytes(size_t bytes) { charge(bytes / 8); }

    // One level of calls, or of a nested value.
    class level {
      public:
        level() {
            if (++state().depth > MAX_CALLS) {
                state().depth--;
                exceeded("more than " + std::to_string(MAX_CALLS) + " nested calls or values");
            }
        }
        ~level() { state().depth--; }
        level(const level &) = delete;
        level & operator=(const level &) = delete;
    };

    static void check_source(size_t bytes) {
        if (bytes > MAX_SOURCE) {
            exceeded(std::to_string(bytes) + " bytes, expected at most " + std::to_string(MAX_SOURCE));
        }
    }
    static void check_nesting(size_t depth) {
        if (depth > MAX_NESTING) {
            exceeded("more than " + std::to_string(MAX_NESTING) + " nested blocks or operators");
        }
    }

  private:
    struct budget {
        bool   active = false;
        size_t left = 0;
        size_t depth = 0;
    };

    static budget & state() {
        static thread_local budget b;
        return b;
    }

    [[noreturn]] static void exceeded(const std::string & what) {
        state().left = 0; // what catches the error and tries again gets it again
        throw std::runtime_error("the chat template has " + what);
    }

    bool outermost;
};

// Why the last chat template of this thread was refused.
inline std::string & chat_template_error() {
    static thread_local std::string text;
    return text;
}

} // namespace cyllama
