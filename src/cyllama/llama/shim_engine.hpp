// llama.cpp's server in this process, without HTTP: the only code that knows its types.
#pragma once

#include "shim_exceptions.hpp"

#include "arg.h"
#include "common.h"
#include "ggml-backend.h"
#include "json.h"
#include "llama-cpp.h"
#include "mtmd-helper.h"
#include "mtmd.h"
#include "server-common.h"
#include "server-context.h"
#include "server-schema.h"
#include "src/llama-ext.h"

#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace cyllama {

// Why a chat template was refused since the last call; empty if none was (patch 22 of llama.cpp).
inline std::string take_template_error() {
    std::string text;
    std::swap(text, chat_template_error());
    return text;
}

// Callbacks into Python during one call: both may take the GIL, neither throws.
struct engine_hooks {
    bool (*poll)(void * state)                 = nullptr; // true: stop
    bool (*progress)(float part, void * state) = nullptr; // false: stop
    void * state                               = nullptr;
};

using route_t = server_http_context::handler_t server_routes::*;

inline const std::map<std::string, route_t> & engine_routes() {
    static const std::map<std::string, route_t> routes = {
        {"health", &server_routes::get_health},
        {"metrics", &server_routes::get_metrics},
        {"slots", &server_routes::get_slots},
        {"slot_action", &server_routes::post_slots},
        {"props", &server_routes::get_props},
        {"infill", &server_routes::post_infill},
        {"completion", &server_routes::post_completions},
        {"completions", &server_routes::post_completions_oai},
        {"chat_completions", &server_routes::post_chat_completions},
        {"chat_tokens", &server_routes::post_chat_completions_tok},
        {"control", &server_routes::post_control},
        {"responses", &server_routes::post_responses_oai},
        {"transcriptions", &server_routes::post_transcriptions_oai},
        {"messages", &server_routes::post_anthropic_messages},
        {"messages_tokens", &server_routes::post_anthropic_count_tokens},
        {"apply_template", &server_routes::post_apply_template},
        {"models", &server_routes::get_models},
        {"tokenize", &server_routes::post_tokenize},
        {"detokenize", &server_routes::post_detokenize},
        {"embedding", &server_routes::post_embeddings},
        {"embeddings", &server_routes::post_embeddings_oai},
        {"rerank", &server_routes::post_rerank},
        {"lora_adapters", &server_routes::get_lora_adapters},
        {"set_lora_adapters", &server_routes::post_lora_adapters},
    };
    return routes;
}

[[noreturn]] inline void reject_exiting_option() {
    throw std::invalid_argument("options that print a text and exit are not supported in a library");
}

// Compute on the devices of RPC servers, before the local ones. Upstream's parser registers them for the process: all
// models that are loaded later would use them too.
inline void add_rpc_devices(common_params & params, const std::string & servers) {
    auto * reg = ggml_backend_reg_by_name("RPC");
    if (!reg) {
        throw std::invalid_argument("this build has no RPC backend");
    }
    const auto connect = (ggml_backend_reg_t (*)(const char *)) ggml_backend_reg_get_proc_address(reg, "ggml_backend_rpc_connect");
    std::vector<ggml_backend_dev_t> devices;
    for (const auto & server : string_split<std::string>(servers, ',')) {
        auto * server_reg = connect(server.c_str());
        if (!server_reg) {
            throw std::runtime_error("the RPC server " + server + " cannot be used");
        }
        for (size_t i = 0; i < ggml_backend_reg_dev_count(server_reg); ++i) {
            devices.push_back(ggml_backend_reg_dev_get(server_reg, i));
        }
    }
    if (params.devices.empty()) { // as upstream: an integrated GPU is used if there is no other
        for (auto type : {GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU}) {
            for (size_t i = 0; i < ggml_backend_dev_count() && (type == GGML_BACKEND_DEVICE_TYPE_GPU || params.devices.empty()); ++i) {
                if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == type) {
                    params.devices.push_back(ggml_backend_dev_get(i));
                }
            }
        }
        params.devices.push_back(nullptr); // ends the list
    }
    params.devices.insert(params.devices.begin(), devices.begin(), devices.end());
}

// Parse options with upstream's parser. Throws for invalid ones; ignores the environment and configuration files.
inline common_params parse_options(std::vector<std::string> options) {
    std::string servers;
    for (auto it = options.begin(); it != options.end();) {
        if (*it == "--rpc" && it + 1 != options.end()) {
            servers = *(it + 1);
            it      = options.erase(it, it + 2);
        } else {
            ++it;
        }
    }
    common_params       params;
    auto                context = common_params_parser_init(params, LLAMA_EXAMPLE_SERVER);
    std::vector<char *> argv    = {const_cast<char *>("cyllama")};
    for (auto & option : context.options) {
        for (const std::string name : option.args) {
            if (name == "--version" || name == "--cache-list" || name == "--list-devices") { // these call exit()
                option.handler_void = [](common_params &) { reject_exiting_option(); };
            }
        }
    }
    for (const auto & option : options) {
        argv.push_back(const_cast<char *>(option.c_str()));
    }
    common_params_parse_ex((int) argv.size(), argv.data(), context, false);
    if (params.usage || params.completion) {
        reject_exiting_option();
    }
    if (!servers.empty()) {
        add_rpc_devices(params, servers);
    }
    return params;
}

// One option of the parser, for documentation and checks.
struct option_info {
    std::vector<std::string> names;
    std::string              help;
    int                      values  = 0; // that follow the name
    bool                     negated = false;
};

inline std::vector<option_info> known_options() {
    common_params            params;
    auto                     context = common_params_parser_init(params, LLAMA_EXAMPLE_SERVER);
    std::vector<option_info> found;
    for (const auto & option : context.options) {
        const int values = option.handler_str_str ? 2 : option.handler_string || option.handler_int ? 1 : 0;
        for (const auto * names : {&option.args, &option.args_neg}) {
            if (!names->empty()) {
                found.push_back({{names->begin(), names->end()}, option.help, values, names == &option.args_neg});
            }
        }
    }
    return found;
}

// A field of a request, with its aliases. Upstream silently clamps values to these limits; `limited` is false for
// fields whose values upstream rejects itself.
struct field_info {
    std::vector<std::string> names;
    std::string              help;
    std::string              kind; // integer, number, flag; empty: another
    bool                     limited = false;
    double                   least   = 0;
    double                   most    = 0;
};

template <typename T>
inline bool describe_number(const server_schema::field & field, field_info & found) {
    const auto * number = dynamic_cast<const server_schema::field_num<T> *>(&field);
    if (!number) {
        return false;
    }
    found.kind    = std::is_integral_v<T> ? "integer" : "number";
    found.limited = !number->is_hard_limit && (number->min != std::numeric_limits<T>::lowest() ||
                                               number->max != std::numeric_limits<T>::max());
    found.least   = static_cast<double>(number->min);
    found.most    = static_cast<double>(number->max);
    return true;
}

template <typename... T>
inline void describe_kind(const server_schema::field & field, field_info & found) {
    if (!(describe_number<T>(field, found) || ...) && dynamic_cast<const server_schema::field_bool *>(&field)) {
        found.kind = "flag";
    }
}

inline std::vector<field_info> known_fields() {
    common_params           base;
    task_params             params;
    std::vector<field_info> found;
    for (const auto & field : server_schema::make_llama_cmpl_schema(base, params)) {
        field_info info;
        info.names.assign(field->name.begin(), field->name.end());
        info.help = field->desc;
        describe_kind<int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, float, double>(*field, info);
        found.push_back(std::move(info));
    }
    return found;
}

// Complete the settings as the server's main program does.
inline common_params completed(common_params params) {
    params.endpoint_slots = params.endpoint_metrics = true;
    if (params.embedding && params.n_batch > params.n_ubatch) {
        params.n_batch = params.n_ubatch;
    }
    if (params.n_parallel < 0) {
        params.n_parallel = 4;
        params.kv_unified = true;
    }
    if (params.kv_unified_per_slot > 0 && params.n_ctx == 0) {
        params.n_ctx = params.n_parallel * params.kv_unified_per_slot;
    }
    if (params.model_alias.empty() && !params.model.get_name().empty()) {
        params.model_alias.insert(params.model.get_name());
    }
    return params;
}

// Memory of a model and its context on a device, in bytes.
struct device_need {
    std::string name;
    bool        host = false;
    size_t      model = 0, context = 0, compute = 0, projector = 0, free = 0, total = 0;
};

struct memory_need {
    std::vector<device_need> devices; // the last one is the host
    uint32_t                 n_ctx = 0, n_ctx_train = 0;
};

// Add the projector's memory: its weights, and the buffers for its largest image.
inline void add_projector(const common_params & params, const std::vector<ggml_backend_dev_t> & devices,
                          memory_need & found) {
    mtmd_context_params mparams = mtmd_context_params_default();
    mparams.use_gpu             = params.mmproj_use_gpu;
    mparams.device              = params.mmproj_device;
    mparams.flash_attn_type     = params.flash_attn_type;
    mparams.image_min_tokens    = params.image_min_tokens;
    mparams.image_max_tokens    = params.image_max_tokens;
    const auto usage = mtmd_get_memory_usage(params.mmproj.path.c_str(), mparams);
    for (const auto & [device, bytes] : usage.backend_mem_usage) {
        size_t i = 0;
        while (i + 1 < devices.size() && devices[i] != device) { // a device that the model does not use counts as the host
            ++i;
        }
        found.devices[i].projector += bytes;
    }
}

// Read only the file's header, and lay out model and context without allocating them.
inline memory_need estimate_memory(const common_params & given) {
    common_params params  = completed(given);
    auto          mparams = common_model_params_to_llama(params);
    mparams.no_alloc      = true;
    mparams.load_mode     = LLAMA_LOAD_MODE_NONE;
    llama_model_ptr model(llama_model_load_from_file(params.model.path.c_str(), mparams));
    if (!model) {
        throw std::runtime_error(params.model.path + " cannot be read as a model");
    }
    llama_context_ptr context(llama_init_from_model(model.get(), common_context_params_to_llama(params)));
    if (!context) {
        throw std::runtime_error("the context cannot be created");
    }
    memory_need found;
    found.n_ctx       = llama_n_ctx(context.get());
    found.n_ctx_train = llama_model_n_ctx_train(model.get());

    std::vector<ggml_backend_dev_t> devices;
    for (int i = 0; i < llama_model_n_devices(model.get()); ++i) {
        devices.push_back(llama_model_get_device(model.get(), i));
    }
    devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    for (auto * device : devices) {
        device_need need;
        need.name = ggml_backend_dev_name(device);
        if (std::string(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device))) == "RPC") {
            need.name += std::string(" (") + ggml_backend_dev_description(device) + ")"; // the server
        }
        need.host = device == devices.back();
        ggml_backend_dev_memory(device, &need.free, &need.total);
        found.devices.push_back(need);
    }
    for (const auto & [type, bytes] : llama_get_memory_breakdown(context.get())) {
        auto * device = ggml_backend_buft_is_host(type) ? devices.back() : ggml_backend_buft_get_device(type);
        for (size_t i = 0; i < devices.size(); ++i) {
            if (devices[i] == device) {
                found.devices[i].model += bytes.model;
                found.devices[i].context += bytes.context;
                found.devices[i].compute += bytes.compute;
                break;
            }
        }
    }
    if (!params.mmproj.path.empty()) {
        add_projector(params, devices, found);
    }
    return found;
}

// Send the projector's log messages to `hook`.
inline void set_projector_log(ggml_log_callback hook, void * data) { mtmd_helper_log_set(hook, data); }

class engine {
  public:
    explicit engine(const common_params & given) : params_(completed(given)), routes_(params_, context_) {}

    engine(const engine &)             = delete;
    engine & operator=(const engine &) = delete;

    ~engine() {
        if (loop_.joinable()) {
            context_.terminate();
            loop_.join();
        }
    }

    // Return false if loading failed, or was stopped.
    bool load(engine_hooks & hooks) {
        context_.set_state_callback([&hooks](server_state, json state) {
            if (hooks.progress && state.contains("value")) {
                const auto & stages = state["stages"];
                float        before = 0.0f;
                for (const auto & stage : stages) {
                    if (stage == state["current"]) {
                        break;
                    }
                    before += 1.0f;
                }
                hooks.progress((before + state["value"].get<float>()) / stages.size(), hooks.state);
            }
        });
        context_.set_stop_callback([&hooks] { return hooks.poll && hooks.poll(hooks.state); });
        if (params_.numa != GGML_NUMA_STRATEGY_DISABLED) {
            llama_numa_init(params_.numa);
        }
        const bool loaded = context_.load_model(params_);
        context_.set_state_callback([](server_state, json) {});
        context_.set_stop_callback({});
        if (!loaded || llama_context_has_failed(context_.get_llama_context())) {
            return false;
        }
        routes_.update_meta(context_);
        read_model(context_.get_llama_context());
        loop_ = std::thread([this] { run(); });
        return true;
    }

    const server_http_context::handler_t & handler(const std::string & route) const {
        return routes_.*engine_routes().at(route);
    }

    enum llama_pooling_type pooling() const { return pooling_; }

    // Texts of the vocabulary's control tokens.
    std::vector<std::string> control_texts() const { return control_texts_; }

    // The error that ended the loop, or an empty string.
    std::string failure() const {
        std::lock_guard<std::mutex> lock(mutex_);
        return failure_;
    }

  private:
    // Keep what is requested later, when a sleeping server may have no model.
    void read_model(const llama_context * context) {
        pooling_                  = llama_pooling_type(context);
        const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(context));
        for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
            const int kind = llama_vocab_get_attr(vocab, token);
            if (kind & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) {
                control_texts_.push_back(llama_vocab_get_text(vocab, token));
            }
        }
    }

    void run() {
        try {
            context_.start_loop();
        } catch (const std::exception & error) {
            fail(error.what());
        } catch (...) {
            fail("unknown C++ exception");
        }
    }

    void fail(const std::string & why) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            failure_ = why;
        }
        context_.fail();
    }

    common_params      params_;
    server_context     context_;
    server_routes      routes_;
    std::thread        loop_;
    mutable std::mutex mutex_;
    std::string        failure_;

    enum llama_pooling_type  pooling_ = LLAMA_POOLING_TYPE_UNSPECIFIED;
    std::vector<std::string> control_texts_;
};

// A request and its response.
class exchange {
  public:
    // files: media that `body` refers to as "attachment:N"; they are moved
    exchange(const engine & owner, const std::string & route, const std::string & body,
             const std::map<std::string, std::string> & params, std::vector<raw_buffer> & files)
        : owner_(owner), handler_(owner.handler(route)), should_stop_([this] { return should_stop(); }),
          request_{params, {}, "/" + route, "", body, {}, should_stop_}, files_(std::move(files)) {}

    exchange(const exchange &)             = delete;
    exchange & operator=(const exchange &) = delete;

    // Compute the response, or the first part of a stream.
    void run(engine_hooks & hooks) {
        bound call(*this, hooks);
        check();
        {
            lent files(files_);
            response_ = handler_(request_);
        }
        std::vector<raw_buffer>().swap(files_);
        check();
    }

    bool is_stream() const { return response_ && response_->is_stream(); }

    int status() const { return response_ ? response_->status : 0; }

    const std::string & data() const {
        static const std::string nothing;
        return response_ ? response_->data : nothing;
    }

    // The next part of a stream; false with the last one.
    bool next(std::string & part, engine_hooks & hooks) {
        bound call(*this, hooks);
        part.clear();
        const bool more = response_->next(part);
        check();
        return more;
    }

  private:
    // Ties the callbacks to one call.
    struct bound {
        exchange & target;
        bound(exchange & target, engine_hooks & hooks) : target(target) { target.hooks_ = &hooks; }
        ~bound() { target.hooks_ = nullptr; }
    };

    // Lends the files to the handler that this thread calls.
    struct lent {
        explicit lent(std::vector<raw_buffer> & files) { request_attachments() = &files; }
        ~lent() { request_attachments() = nullptr; }
    };

    bool should_stop() const { return hooks_ && hooks_->poll && hooks_->poll(hooks_->state); }

    void check() const {
        const std::string why = owner_.failure();
        if (!why.empty()) {
            throw std::runtime_error(why);
        }
    }

    const engine &                         owner_;
    const server_http_context::handler_t & handler_;
    std::function<bool()>                  should_stop_;
    server_http_req                        request_;
    std::vector<raw_buffer>                files_;
    server_http_res_ptr                    response_; // destroyed before request_, which it refers to
    engine_hooks *                         hooks_ = nullptr;
};

inline bool has_route(const std::string & route) { return engine_routes().count(route) > 0; }

} // namespace cyllama
