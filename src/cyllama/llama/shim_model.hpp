// What llama.h does not tell of a model.
#pragma once

#include "ggml-backend.h"
#include "llama.h"

#include <string>
#include <utility>
#include <vector>

const std::vector<std::pair<std::string, ggml_tensor *>> & llama_internal_get_tensor_map(const llama_model * model);

namespace cyllama {

// Whether weights lie in a buffer of the CPU that cannot be read, because a kernel has reordered them.
inline bool has_reordered_weights(const llama_model * model) {
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        if (tensor->buffer == nullptr) {
            continue;
        }
        ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
        ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
        if (!ggml_backend_buft_is_host(type) && device != nullptr &&
            ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            return true;
        }
    }
    return false;
}

} // namespace cyllama
