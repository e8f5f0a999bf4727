// Check Parakeet models of whisper.cpp before the engine loads them: it trusts every number in the file.
#pragma once

#include "shim_model.hpp"

#include "parakeet.h"

namespace cyllama {

inline parakeet_model_loader parakeet_loader_of(model_source & source) {
    const whisper_model_loader loader = source.loader();
    parakeet_model_loader      result = {};
    result.context = loader.context;
    result.read    = loader.read;
    result.eof     = loader.eof;
    result.close   = loader.close;
    return result;
}

struct parakeet_sizes {
    int32_t n_vocab, n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer, n_mels, ftype, n_fft;
    int32_t subsampling_factor, n_channels, n_conv_kernel, n_pred_dim, n_pred_layers, n_durations, n_max_tokens;
};

constexpr int32_t PARAKEET_SUBSAMPLING  = 8;         // three convolutions of stride 2 in the engine's graph
constexpr int32_t PARAKEET_MAX_DURATION = 1000;      // encoder frames; models have 4
constexpr int32_t PARAKEET_MAX_WORD     = 4096;      // bytes
constexpr float   PARAKEET_MAX_FLOAT    = 100;       // of a mel filter or a window; models have at most 1
constexpr int64_t PARAKEET_MAX_MEMORY   = 1LL << 30; // bytes for computing; a model of 0.6 billion weights needs 0.5 GB

// Estimate the memory for computing `n_audio_ctx` mel frames, in bytes, from the large tensors.
inline int64_t parakeet_memory(const parakeet_sizes & s) {
    const int64_t n_ctx    = s.n_audio_ctx;
    const int64_t n_frames = (n_ctx + PARAKEET_SUBSAMPLING - 1) / PARAKEET_SUBSAMPLING;
    const int64_t scores   = 8 * n_frames * n_frames * s.n_audio_head; // with those of relative positions, and copies
    const int64_t features = (s.n_mels / 2) * (n_ctx / 2) * s.n_channels;
    const int64_t gates    = 4 * n_ctx * s.n_pred_dim;
    const int64_t logits   = n_ctx * s.n_vocab;
    return int64_t(sizeof(float)) * (scores + features + gates + logits);
}

inline parakeet_sizes check_parakeet_sizes(model_source & source) {
    // upper limits: the size of the engine's graphs (layers), and far more than the largest Parakeet has (the rest)
    parakeet_sizes s;
    s.n_vocab            = number_in(source, "n_vocab", 1, 1 << 17);
    s.n_audio_ctx        = number_in(source, "n_audio_ctx", 64, 1 << 15);
    s.n_audio_state      = number_in(source, "n_audio_state", 2, 4096);
    s.n_audio_head       = number_in(source, "n_audio_head", 1, 256);
    s.n_audio_layer      = number_in(source, "n_audio_layer", 1, 48);
    s.n_mels             = number_in(source, "n_mels", PARAKEET_SUBSAMPLING, 256);
    s.ftype              = number_in(source, "ftype", 0, 100 * GGML_QNT_VERSION_FACTOR);
    s.n_fft              = number_in(source, "n_fft", 32, 4096);
    s.subsampling_factor = number_in(source, "subsampling_factor", PARAKEET_SUBSAMPLING, PARAKEET_SUBSAMPLING);
    s.n_channels         = number_in(source, "n_subsampling_channels", 1, 1024);
    s.n_conv_kernel      = number_in(source, "n_conv_kernel", 3, 63);
    s.n_pred_dim         = number_in(source, "n_pred_dim", 1, 4096);
    s.n_pred_layers      = number_in(source, "n_pred_layers", 1, 2);
    s.n_durations        = number_in(source, "n_tdt_durations", 1, 64);
    s.n_max_tokens       = number_in(source, "n_max_tokens", 1, 1000);
    if (s.n_audio_state % s.n_audio_head || s.n_audio_state % 2) {
        reject("n_audio_state is " + std::to_string(s.n_audio_state) + ", expected an even number and a multiple of "
               "the number of heads");
    }
    if (s.n_mels % PARAKEET_SUBSAMPLING) {
        reject("n_mels is " + std::to_string(s.n_mels) + ", expected a multiple of subsampling_factor");
    }
    if (s.n_fft % 2) {
        reject("n_fft is " + std::to_string(s.n_fft) + ", expected an even number");
    }
    if (s.n_conv_kernel % 2 == 0) {
        reject("n_conv_kernel is " + std::to_string(s.n_conv_kernel) + ", expected an odd number");
    }
    const int64_t block    = ggml_blck_size(weight_type(s.ftype));
    const int64_t features = int64_t(s.n_mels / PARAKEET_SUBSAMPLING) * s.n_channels;
    if (s.n_audio_state % block || features % block) {
        reject("its widths are " + std::to_string(s.n_audio_state) + " and " + std::to_string(features) +
               ", expected multiples of the block size of its weights, " + std::to_string(block));
    }
    if (parakeet_memory(s) > PARAKEET_MAX_MEMORY) {
        reject("computing would take " + std::to_string(parakeet_memory(s) >> 20) + " MiB, expected at most " +
               std::to_string(PARAKEET_MAX_MEMORY >> 20));
    }
    return s;
}

// Check the mel filters, the window, the durations and the words.
inline void check_parakeet_tables(model_source & source, const parakeet_sizes & s) {
    const int32_t n_bins = 1 + s.n_fft / 2;
    number_in(source, "the number of mel bands", s.n_mels, s.n_mels);
    number_in(source, "the number of FFT bins", n_bins, n_bins);
    check_floats(source, "the table of mel filters", uint64_t(s.n_mels) * n_bins, -PARAKEET_MAX_FLOAT,
                 PARAKEET_MAX_FLOAT);
    const int32_t length = number_in(source, "the length of the window", 0, s.n_fft);
    check_floats(source, "the window", length, -PARAKEET_MAX_FLOAT, PARAKEET_MAX_FLOAT);
    for (int32_t i = 0; i < s.n_durations; ++i) {
        number_in(source, "a duration", 0, PARAKEET_MAX_DURATION);
    }
    number_in(source, "the number of words", s.n_vocab, s.n_vocab);
    for (int32_t i = 0; i < s.n_vocab; ++i) {
        source.skip(number_in(source, "the length of a word", 0, PARAKEET_MAX_WORD));
    }
}

inline void add_parakeet_layer(tensor_table & table, const std::string & name, const parakeet_sizes & s) {
    const ggml_type w = weight_type(s.ftype);
    const int64_t   n = s.n_audio_state;
    for (const char * norm : { ".norm_feed_forward1", ".norm_feed_forward2", ".norm_conv", ".norm_self_att",
                               ".norm_out", ".conv.batch_norm" }) {
        table[name + norm + ".weight"] = { GGML_TYPE_F32, { n } };
        table[name + norm + ".bias"]   = { GGML_TYPE_F32, { n } };
    }
    for (const char * block : { ".feed_forward1", ".feed_forward2" }) {
        table[name + block + ".linear1.weight"] = { w, { n, 4 * n } };
        table[name + block + ".linear2.weight"] = { w, { 4 * n, n } };
    }
    table[name + ".conv.pointwise_conv1.weight"]           = { w, { n, 2 * n } };
    table[name + ".conv.depthwise_conv.weight"]            = { GGML_TYPE_F32, { s.n_conv_kernel, n } };
    table[name + ".conv.batch_norm.running_mean"]          = { GGML_TYPE_F32, { n } };
    table[name + ".conv.batch_norm.running_var"]           = { GGML_TYPE_F32, { n } };
    table[name + ".conv.batch_norm.num_batches_tracked"]   = { GGML_TYPE_I32, { 1 }, GGML_TYPE_F32 }; // unused
    table[name + ".conv.pointwise_conv2.weight"]           = { w, { n, n } };
    for (const char * part : { ".pos_bias_u", ".pos_bias_v" }) {
        table[name + ".self_attn" + part] = { GGML_TYPE_F32, { n / s.n_audio_head, s.n_audio_head } };
    }
    for (const char * part : { "q", "k", "v", "out", "pos" }) {
        table[name + ".self_attn.linear_" + part + ".weight"] = { w, { n, n } };
    }
}

inline tensor_table parakeet_tensors(const parakeet_sizes & s) {
    const ggml_type w = weight_type(s.ftype);
    const int64_t   n = s.n_audio_state, d = s.n_pred_dim, c = s.n_channels;
    const int64_t   n_out = int64_t(s.n_vocab) + s.n_durations + 1;
    // as in the engine: blocks of K-quants have 256 values, which do not divide the decoder's width of 640
    const ggml_type p = d % ggml_blck_size(w) ? GGML_TYPE_F32 : w;
    tensor_table table = {
        { "encoder.pre_encode.out.weight",   { w, { s.n_mels / PARAKEET_SUBSAMPLING * c, n } } },
        { "encoder.pre_encode.out.bias",     { GGML_TYPE_F32, { n } } },
        { "decoder.prediction.embed.weight", { p, { d, int64_t(s.n_vocab) + 1 } } },
        { "joint.pred.weight",               { p, { d, d } } },
        { "joint.pred.bias",                 { GGML_TYPE_F32, { d } } },
        { "joint.enc.weight",                { w, { n, d } } },
        { "joint.enc.bias",                  { GGML_TYPE_F32, { d } } },
        { "joint.joint_net.2.weight",        { p, { d, n_out } } },
        { "joint.joint_net.2.bias",          { GGML_TYPE_F32, { n_out } } },
    };
    for (const int number : { 0, 2, 3, 5, 6 }) {
        const std::string name   = "encoder.pre_encode.conv." + std::to_string(number);
        const bool        points = number == 3 || number == 6;
        table[name + ".weight"]  = { GGML_TYPE_F32, { points ? 1 : 3, points ? 1 : 3, points ? c : 1, c } };
        table[name + ".bias"]    = { GGML_TYPE_F32, { 1, 1, c, 1 } };
    }
    for (int i = 0; i < s.n_audio_layer; ++i) {
        add_parakeet_layer(table, "encoder.layers." + std::to_string(i), s);
    }
    for (int i = 0; i < s.n_pred_layers; ++i) {
        const std::string name = "decoder.prediction.dec_rnn.lstm.", end = "_l" + std::to_string(i);
        table[name + "weight_ih" + end] = { p, { d, 4 * d } };
        table[name + "weight_hh" + end] = { p, { d, 4 * d } };
        table[name + "bias_h" + end]    = { GGML_TYPE_F32, { 4 * d } };
    }
    return table;
}

// Throw if the engine could not load the model safely.
inline bool check_parakeet_model(model_source & source) {
    source.rewind();
    check_magic(source);
    const parakeet_sizes s = check_parakeet_sizes(source);
    check_parakeet_tables(source, s);
    tensor_table table = parakeet_tensors(s);
    const bool has_weights = check_tensors(source, table, false);
    source.rewind();
    return has_weights;
}

} // namespace cyllama
