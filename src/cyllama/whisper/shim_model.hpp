// Check model files before whisper.cpp loads them: the engine trusts every number in a file.
#pragma once

#include "shim_exceptions.hpp"

#include "ggml.h"
#include "whisper.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

namespace cyllama {

typedef bool (*stop_function)(void *);

// A model in memory, or in an open file from byte `start`. Reading throws past the end, and when `stop` returns true.
class model_source {
  public:
    model_source(const void * data, uint64_t size) : data(static_cast<const char *>(data)), size(size) {}

    model_source(int fd, uint64_t start, uint64_t size) : fd(fd), start(start), size(size), buffer(1 << 16) {}

    void set_stop(stop_function function, void * argument) {
        stop          = function;
        stop_argument = argument;
    }

    uint64_t left() const { return size - position; }

    void rewind() {
        position = 0;
        ended    = false;
    }

    void read(void * out, uint64_t n) {
        char * target = static_cast<char *>(out);
        if (n > left()) {
            throw std::runtime_error("the file ends at byte " + std::to_string(size) + ", where byte " +
                                     std::to_string(position + n) + " should be: it is truncated or damaged");
        }
        while (n > 0) {
            if (stop && stop(stop_argument)) {
                throw std::runtime_error("stopped");
            }
            const uint64_t part = std::min<uint64_t>(n, 1 << 20);
            copy(target, part);
            target += part;
            n -= part;
        }
    }

    void skip(uint64_t n) {
        if (n > left()) {
            read(nullptr, n); // throws
        }
        position += n;
    }

    template <typename T> T number() {
        T value;
        read(&value, sizeof(value));
        return value;
    }

    // The loader of whisper.cpp. At the end, `eof` becomes true only after a read past it, as the engine expects.
    whisper_model_loader loader() {
        whisper_model_loader result = {};
        result.context = this;
        result.read = [](void * self, void * out, size_t n) -> size_t {
            auto * source = static_cast<model_source *>(self);
            if (source->left() == 0) {
                source->ended = true;
                return 0;
            }
            source->read(out, n);
            return n;
        };
        result.eof = [](void * self) { return static_cast<model_source *>(self)->ended; };
        result.close = [](void *) {};
        return result;
    }

  private:
    void copy(char * target, uint64_t n) {
        if (data) {
            memcpy(target, data + position, n);
        } else if (n > buffer.size()) {
            fetch(target, n, position);
        } else {
            if (position < buffer_start || position + n > buffer_start + buffered) {
                buffered     = std::min<uint64_t>(buffer.size(), left());
                buffer_start = position;
                fetch(buffer.data(), buffered, position);
            }
            memcpy(target, buffer.data() + (position - buffer_start), n);
        }
        position += n;
    }

    void fetch(char * target, uint64_t n, uint64_t from) {
        while (n > 0) {
            const ssize_t got = pread(fd, target, n, start + from);
            if (got < 0 && errno == EINTR) {
                continue;
            }
            if (got <= 0) {
                buffered = 0;
                throw std::runtime_error(got < 0 ? std::string("the file cannot be read: ") + strerror(errno) :
                                                   "the file became shorter while it was read");
            }
            target += got;
            from += got;
            n -= got;
        }
    }

    const char * data  = nullptr;
    int          fd    = -1;
    uint64_t     start = 0;
    uint64_t     size;
    uint64_t     position = 0;
    bool         ended    = false;

    std::vector<char> buffer;
    uint64_t          buffer_start = 0;
    uint64_t          buffered     = 0;

    stop_function stop = nullptr;
    void * stop_argument  = nullptr;
};

inline model_source * source_in_memory(const void * data, uint64_t size) { return new model_source(data, size); }

inline model_source * source_in_file(int fd, uint64_t start, uint64_t size) {
    return new model_source(fd, start, size);
}

inline void stop_source(model_source & source, stop_function function, void * argument) {
    source.set_stop(function, argument);
}

inline whisper_model_loader loader_of(model_source & source) { return source.loader(); }

typedef bool (*check_function)(model_source &); // returns whether the model has weights; throws to reject it

struct tensor_shape {
    ggml_type            type;
    std::vector<int64_t> ne;
    ggml_type            other = GGML_TYPE_COUNT; // also allowed, of the same size
};

using tensor_table = std::map<std::string, tensor_shape>;

[[noreturn]] inline void reject(const std::string & reason) { throw std::runtime_error(reason); }

inline int32_t number_in(model_source & source, const char * name, int32_t low, int32_t high) {
    const auto value = source.number<int32_t>();
    if (value < low || value > high) {
        reject(std::string(name) + " is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
               std::to_string(high));
    }
    return value;
}

// Check floats that the engine multiplies every spectrum with. Values that are not finite, or far out of range, make it
// decode noise for minutes.
inline void check_floats(model_source & source, const char * name, uint64_t n, float low, float high) {
    for (uint64_t i = 0; i < n; ++i) {
        const auto value = source.number<float>();
        if (!(value >= low && value <= high)) {
            reject(std::string(name) + " contains " + std::to_string(value) + ", expected " + std::to_string(low) +
                   " to " + std::to_string(high));
        }
    }
}

inline void check_magic(model_source & source) {
    char magic[4];
    if (source.left() < sizeof(magic)) {
        reject("it is too short for a model");
    }
    source.read(magic, sizeof(magic));
    if (memcmp(magic, "GGUF", 4) == 0) {
        reject("it is a GGUF file, a model of another engine");
    }
    if (memcmp(magic, "lmgg", 4) != 0) {
        reject("it does not begin with the magic number of whisper.cpp models");
    }
}

// Check that the rest of the file has every tensor of the table once. Return false if it has none, which
// `may_be_empty` allows.
inline bool check_tensors(model_source & source, tensor_table & expected, bool may_be_empty) {
    if (may_be_empty && source.left() == 0) {
        return false;
    }
    std::set<std::string> found;
    while (source.left() > 0) {
        const int32_t n_dims = number_in(source, "the number of dimensions of a tensor", 0, 4);
        const int32_t length = number_in(source, "the length of a tensor's name", 1, GGML_MAX_NAME - 1);
        const int32_t type   = source.number<int32_t>();
        int64_t       ne[4]  = { 1, 1, 1, 1 };
        for (int i = 0; i < n_dims; ++i) {
            ne[i] = source.number<int32_t>();
        }
        std::string name(length, '\0');
        source.read(&name[0], length);
        const auto entry = expected.find(name);
        if (entry == expected.end()) {
            reject("it has an unknown tensor");
        }
        const tensor_shape & shape = entry->second;
        if (!found.insert(name).second) {
            reject("the tensor " + name + " is in the file twice");
        }
        if (type != shape.type && type != shape.other) {
            reject("the tensor " + name + " has the type " + std::to_string(type) + ", expected " +
                   ggml_type_name(shape.type));
        }
        uint64_t n_bytes = ggml_row_size(shape.type, shape.ne[0]);
        for (size_t i = 0; i < 4; ++i) {
            const int64_t wanted = i < shape.ne.size() ? shape.ne[i] : 1;
            if (ne[i] != wanted) {
                reject("dimension " + std::to_string(i) + " of the tensor " + name + " is " + std::to_string(ne[i]) +
                       ", expected " + std::to_string(wanted));
            }
            n_bytes *= i > 0 ? wanted : 1;
        }
        source.skip(n_bytes);
    }
    for (const auto & entry : expected) {
        if (!found.count(entry.first)) {
            reject("the tensor " + entry.first + " is missing");
        }
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------- speech models

struct whisper_sizes {
    int32_t n_vocab, n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer;
    int32_t n_text_ctx, n_text_state, n_text_head, n_text_layer, n_mels, ftype;
};

inline ggml_type weight_type(int32_t ftype) {
    switch (ftype % GGML_QNT_VERSION_FACTOR) {
        case GGML_FTYPE_ALL_F32:
        case GGML_FTYPE_MOSTLY_F16:
        case GGML_FTYPE_MOSTLY_BF16:
        case GGML_FTYPE_MOSTLY_Q4_0:
        case GGML_FTYPE_MOSTLY_Q4_1:
        case GGML_FTYPE_MOSTLY_Q5_0:
        case GGML_FTYPE_MOSTLY_Q5_1:
        case GGML_FTYPE_MOSTLY_Q8_0:
        case GGML_FTYPE_MOSTLY_Q2_K:
        case GGML_FTYPE_MOSTLY_Q3_K:
        case GGML_FTYPE_MOSTLY_Q4_K:
        case GGML_FTYPE_MOSTLY_Q5_K:
        case GGML_FTYPE_MOSTLY_Q6_K:
            return ggml_ftype_to_ggml_type(static_cast<ggml_ftype>(ftype % GGML_QNT_VERSION_FACTOR));
        default:
            reject("its type of weights (ftype " + std::to_string(ftype) + ") is unknown");
    }
}

inline whisper_sizes check_sizes(model_source & source) {
    // upper limits: the size of the engine's graphs (layers), and far more than the largest Whisper has (the rest)
    whisper_sizes s;
    s.n_vocab       = number_in(source, "n_vocab", 51864, 51866);
    s.n_audio_ctx   = number_in(source, "n_audio_ctx", 64, 8192);
    s.n_audio_state = number_in(source, "n_audio_state", 32, 4096);
    s.n_audio_head  = number_in(source, "n_audio_head", 1, 256);
    s.n_audio_layer = number_in(source, "n_audio_layer", 1, 48);
    s.n_text_ctx    = number_in(source, "n_text_ctx", 64, 4096);
    s.n_text_state  = number_in(source, "n_text_state", s.n_audio_state, s.n_audio_state);
    s.n_text_head   = number_in(source, "n_text_head", s.n_audio_head, s.n_audio_head);
    s.n_text_layer  = number_in(source, "n_text_layer", 1, 48);
    s.n_mels        = number_in(source, "n_mels", 1, 256);
    s.ftype         = number_in(source, "ftype", 0, 100 * GGML_QNT_VERSION_FACTOR);
    const int64_t block = ggml_blck_size(weight_type(s.ftype));
    if (s.n_audio_state % s.n_audio_head || s.n_text_state % s.n_text_head || s.n_audio_state % block) {
        reject("n_audio_state is " + std::to_string(s.n_audio_state) + ", expected a multiple of the number of heads "
               "and of the block size of its weights");
    }
    return s;
}

inline void check_vocabulary(model_source & source, const whisper_sizes & s) {
    number_in(source, "the number of mel bands", s.n_mels, s.n_mels);
    number_in(source, "the number of FFT bins", 1 + WHISPER_N_FFT / 2, 1 + WHISPER_N_FFT / 2);
    check_floats(source, "the table of mel filters", uint64_t(s.n_mels) * (1 + WHISPER_N_FFT / 2), 0.0f, 1.0f);
    const int32_t n_words   = number_in(source, "the number of words", 1, s.n_vocab);
    bool          has_space = false;
    for (int32_t i = 0; i < n_words; ++i) {
        const int32_t length = number_in(source, "the length of a word", 0, 4096);
        char          first  = 0;
        if (length == 1) {
            source.read(&first, 1);
        } else {
            source.skip(length);
        }
        has_space = has_space || first == ' ';
    }
    if (!has_space) {
        reject("its vocabulary has no space");
    }
}

inline void add_block(tensor_table & table, const std::string & name, const whisper_sizes & s, bool is_decoder) {
    const ggml_type w = weight_type(s.ftype);
    const int64_t   n = s.n_audio_state;
    const auto norm = [&](const std::string & part) {
        table[name + part + ".weight"] = { GGML_TYPE_F32, { n } };
        table[name + part + ".bias"]   = { GGML_TYPE_F32, { n } };
    };
    const auto linear = [&](const std::string & part, int64_t in, int64_t out, bool bias = true) {
        table[name + part + ".weight"] = { w, { in, out } };
        if (bias) {
            table[name + part + ".bias"] = { GGML_TYPE_F32, { out } };
        }
    };
    norm(".mlp_ln");
    linear(".mlp.0", n, 4 * n);
    linear(".mlp.2", 4 * n, n);
    for (const char * attention : { ".attn", ".cross_attn" }) {
        if (attention[1] == 'c' && !is_decoder) {
            continue;
        }
        norm(std::string(attention) + "_ln");
        linear(std::string(attention) + ".query", n, n);
        linear(std::string(attention) + ".key", n, n, false);
        linear(std::string(attention) + ".value", n, n);
        linear(std::string(attention) + ".out", n, n);
    }
}

inline tensor_table whisper_tensors(const whisper_sizes & s) {
    const ggml_type w = weight_type(s.ftype);
    const ggml_type c = w == GGML_TYPE_F32 ? GGML_TYPE_F32 : GGML_TYPE_F16; // of the convolutions
    const int64_t   n = s.n_audio_state;
    tensor_table table = {
        { "encoder.positional_embedding",   { GGML_TYPE_F32, { n, s.n_audio_ctx } } },
        { "encoder.conv1.weight",           { c, { 3, s.n_mels, n } } },
        { "encoder.conv1.bias",             { GGML_TYPE_F32, { 1, n } } },
        { "encoder.conv2.weight",           { c, { 3, n, n } } },
        { "encoder.conv2.bias",             { GGML_TYPE_F32, { 1, n } } },
        { "encoder.ln_post.weight",         { GGML_TYPE_F32, { n } } },
        { "encoder.ln_post.bias",           { GGML_TYPE_F32, { n } } },
        { "decoder.positional_embedding",   { GGML_TYPE_F32, { n, s.n_text_ctx } } },
        { "decoder.token_embedding.weight", { w, { n, s.n_vocab } } },
        { "decoder.ln.weight",              { GGML_TYPE_F32, { n } } },
        { "decoder.ln.bias",                { GGML_TYPE_F32, { n } } },
    };
    for (int i = 0; i < s.n_audio_layer; ++i) {
        add_block(table, "encoder.blocks." + std::to_string(i), s, false);
    }
    for (int i = 0; i < s.n_text_layer; ++i) {
        add_block(table, "decoder.blocks." + std::to_string(i), s, true);
    }
    return table;
}

// Throw if whisper.cpp could not load the model safely. Return false if it has a vocabulary but no weights.
inline bool check_whisper_model(model_source & source) {
    source.rewind();
    check_magic(source);
    const whisper_sizes s = check_sizes(source);
    check_vocabulary(source, s);
    tensor_table table = whisper_tensors(s);
    const bool has_weights = check_tensors(source, table, true);
    if (!has_weights && (s.n_audio_state > 1280 || s.n_audio_layer > 32 || s.n_text_layer > 32)) {
        reject("it has no weights and is larger than any Whisper"); // the engine allocates its weights
    }
    source.rewind();
    return has_weights;
}

// ------------------------------------------------------------------------------------------------------- VAD models

// whisper.cpp's graph has exactly these sizes. Return true.
inline bool check_vad_model(model_source & source) {
    const int32_t channels[][2] = { { 129, 128 }, { 128, 64 }, { 64, 64 }, { 64, 128 } };
    source.rewind();
    check_magic(source);
    source.skip(number_in(source, "the length of the model's name", 1, 1024));
    source.skip(3 * sizeof(int32_t)); // version
    number_in(source, "the window", 512, 512);
    number_in(source, "the context", 0, 512);
    number_in(source, "the number of encoder layers", 4, 4);
    tensor_table table;
    for (int i = 0; i < 4; ++i) {
        const int32_t in     = number_in(source, "the number of input channels", channels[i][0], channels[i][0]);
        const int32_t out    = number_in(source, "the number of output channels", channels[i][1], channels[i][1]);
        const int32_t kernel = number_in(source, "the size of the kernel", 3, 3);
        const std::string name = "_model.encoder." + std::to_string(i) + ".reparam_conv";
        table[name + ".weight"] = { GGML_TYPE_F16, { kernel, in, out } };
        table[name + ".bias"]   = { GGML_TYPE_F32, { out } };
    }
    const int64_t n = number_in(source, "the LSTM's input size", 128, 128);
    number_in(source, "the LSTM's hidden size", 128, 128);
    number_in(source, "the size of the last layer's input", 128, 128);
    number_in(source, "the size of the last layer's output", 1, 1);
    table["_model.stft.forward_basis_buffer"] = { GGML_TYPE_F16, { 256, 1, 258 } };
    table["_model.decoder.rnn.weight_ih"]     = { GGML_TYPE_F32, { n, 4 * n } };
    table["_model.decoder.rnn.weight_hh"]     = { GGML_TYPE_F32, { n, 4 * n } };
    table["_model.decoder.rnn.bias_ih"]       = { GGML_TYPE_F32, { 4 * n } };
    table["_model.decoder.rnn.bias_hh"]       = { GGML_TYPE_F32, { 4 * n } };
    table["_model.decoder.decoder.2.weight"]  = { GGML_TYPE_F16, { n } };
    table["_model.decoder.decoder.2.bias"]    = { GGML_TYPE_F32, { 1 } };
    const bool has_weights = check_tensors(source, table, false);
    source.rewind();
    return has_weights;
}

} // namespace cyllama
