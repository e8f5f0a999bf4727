// Parse grammars with whisper.cpp's parser, which then throws instead of printing; and find the tokens that match a
// regular expression.
#pragma once

#include "linear_regex.hpp"
#include "shim_exceptions.hpp"
#include "shim_model.hpp" // stop_function

#include "whisper.h"

#include <cstdint>
#include <cwchar>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// The source, because the functions used here are static; in an unnamed namespace, because several modules of one shared
// object include it.
namespace cyllama {
namespace {
#include "grammar-parser.cpp"
} // namespace
} // namespace cyllama

namespace cyllama {

constexpr size_t MAX_GRAMMAR_DEPTH    = 200;   // the parser recurses for each group
constexpr size_t MAX_GRAMMAR_ELEMENTS = 10000; // the engine recurses for each element that may be empty

inline void check_grammar_depth(const std::string & text) {
    size_t depth = 0;
    char   quote = 0; // the end of the literal or the class
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quote) {
            i += c == '\\';
            quote = c == quote ? 0 : quote;
        } else if (c == '"' || c == '[') {
            quote = c == '"' ? '"' : ']';
        } else if (c == '#') {
            while (i + 1 < text.size() && text[i + 1] != '\n') {
                ++i;
            }
        } else if (c == '(' && ++depth > MAX_GRAMMAR_DEPTH) {
            throw std::runtime_error("groups are nested more than " + std::to_string(MAX_GRAMMAR_DEPTH) + " deep");
        } else if (c == ')' && depth > 0) {
            --depth;
        }
    }
}

inline grammar_parser::parse_state parse_grammar(const std::string & text) {
    check_grammar_depth(text);
    grammar_parser::parse_state state;
    const char * pos = grammar_parser::parse_space(text.c_str(), true);
    while (*pos) {
        pos = grammar_parser::parse_rule(state, pos);
    }
    size_t n_elements = 0;
    for (const auto & rule : state.rules) {
        n_elements += rule.size();
    }
    if (n_elements > MAX_GRAMMAR_ELEMENTS) {
        throw std::runtime_error("it has " + std::to_string(n_elements) + " elements, expected at most " +
                                 std::to_string(MAX_GRAMMAR_ELEMENTS));
    }
    return state;
}

// Return the tokens below `n_tokens` whose whole text matches, up to the token at which `stop` returns true.
inline std::vector<int> matching_tokens(
    whisper_context * ctx, int n_tokens, const std::string & pattern, stop_function stop, void * stop_argument) {
    linear_regex expression(pattern);
    std::vector<std::pair<size_t, size_t>> groups;
    std::vector<int> found;
    for (int id = 0; id < n_tokens && !stop(stop_argument); ++id) {
        if (expression.find(whisper_token_to_str(ctx, id), true, groups)) {
            found.push_back(id);
        }
    }
    return found;
}

} // namespace cyllama
