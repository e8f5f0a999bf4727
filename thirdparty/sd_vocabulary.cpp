// The vocabularies of stable-diffusion.cpp out of the compact files of scripts/sd_vocabulary.py. Replaces
// src/tokenizers/vocab/vocab.cpp of upstream.
#include "tokenizers/vocab/vocab.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

// The content of a file as `name`, up to `name_end`.
#if defined(__APPLE__)
#define CYLLAMA_SECTION ".section __TEXT,__const\n"
#define CYLLAMA_RETURN  ".text\n"
#define CYLLAMA_SYMBOL  "_"
#else
#define CYLLAMA_SECTION ".pushsection .rodata\n"
#define CYLLAMA_RETURN  ".popsection\n"
#define CYLLAMA_SYMBOL  ""
#endif
#define CYLLAMA_FILE(name)                                                                   \
    __asm__(CYLLAMA_SECTION CYLLAMA_SYMBOL #name ":\n.incbin \"" CYLLAMA_VOCABULARY "/" #name "\"\n" \
            CYLLAMA_SYMBOL #name "_end:\n.byte 0\n" CYLLAMA_RETURN);                          \
    extern "C" __attribute__((visibility("hidden"))) const char name[], name##_end[];        \
    static std::string_view file_##name() { return { name, size_t(name##_end - name) }; }

CYLLAMA_FILE(clip_merges)
CYLLAMA_FILE(qwen2_merges)
CYLLAMA_FILE(mistral_tokens)
CYLLAMA_FILE(t5_tokens)
CYLLAMA_FILE(t5_scores)
CYLLAMA_FILE(umt5_tokens)
CYLLAMA_FILE(umt5_scores)

static std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    for (;;) {
        const size_t end = text.find('\n');
        lines.push_back(text.substr(0, end));
        if (end == std::string_view::npos) {
            return lines;
        }
        text.remove_prefix(end + 1);
    }
}

static void append_json(std::string & json, std::string_view text) {
    json += '"';
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            json += '\\';
            json += c;
        } else if ((unsigned char) c < 0x20) {
            char escape[8];
            snprintf(escape, sizeof(escape), "\\u%04x", c);
            json += escape;
        } else {
            json += c;
        }
    }
    json += '"';
}

// The first line begins the JSON; the scores are differences of the bits of floats, in groups of 7 bits.
static std::string unigram_json(std::string_view tokens, std::string_view scores) {
    const auto   lines = lines_of(tokens);
    std::string  json(lines[0]);
    const char * next = scores.data();
    uint32_t     bits = 0;
    for (size_t i = 1; i < lines.size(); ++i) {
        uint64_t number = 0;
        for (int shift = 0;; shift += 7) {
            const auto part = (unsigned char) *next++;
            number |= uint64_t(part & 127) << shift;
            if (part < 128) {
                break;
            }
        }
        bits += (uint32_t) (number & 1 ? ~(number >> 1) : number >> 1);
        float score;
        memcpy(&score, &bits, sizeof(score));
        char decimal[32];
        snprintf(decimal, sizeof(decimal), "%.9g", score);
        json += i == 1 ? "[" : ",[";
        append_json(json, lines[i]);
        json += ',';
        json += decimal;
        json += strpbrk(decimal, ".e") ? "]" : ".0]"; // the tokenizer takes no integer
    }
    return json + "]}}";
}

std::string load_clip_merges() { return std::string(file_clip_merges()); }

std::string load_qwen2_merges() { return std::string(file_qwen2_merges()); }

// For each token all pairs of tokens that form it, by their numbers.
std::string load_mistral_merges() {
    const auto                                     tokens = lines_of(file_mistral_tokens());
    std::unordered_map<std::string_view, uint32_t> numbers;
    for (size_t i = 0; i < tokens.size(); ++i) {
        numbers[tokens[i]] = i;
    }
    std::string                                merges;
    std::vector<std::tuple<uint32_t, uint32_t>> pairs;
    for (const auto token : tokens) {
        pairs.clear();
        for (size_t i = 1; i < token.size(); ++i) {
            if (((unsigned char) token[i] & 0xC0) == 0x80) {
                continue; // within a character
            }
            const auto left = numbers.find(token.substr(0, i)), right = numbers.find(token.substr(i));
            if (left != numbers.end() && right != numbers.end()) {
                pairs.emplace_back(left->second, right->second);
            }
        }
        std::sort(pairs.begin(), pairs.end());
        for (const auto & [left, right] : pairs) {
            merges.append(tokens[left]).append(" ").append(tokens[right]).append("\n");
        }
    }
    return merges;
}

std::string load_mistral_vocab_json() {
    std::string json;
    size_t      number = 0;
    for (const auto token : lines_of(file_mistral_tokens())) {
        json += number == 0 ? '{' : ',';
        append_json(json, token);
        json += ':' + std::to_string(number++);
    }
    return json + "}";
}

std::string load_t5_tokenizer_json() { return unigram_json(file_t5_tokens(), file_t5_scores()); }

std::string load_umt5_tokenizer_json() { return unigram_json(file_umt5_tokens(), file_umt5_scores()); }
