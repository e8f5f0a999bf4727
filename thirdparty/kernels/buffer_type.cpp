#include "cyllama_kernels.h"

#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "simd.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace cyllama {
namespace {

const Kernel * const KERNELS[] = {
    &q4_k_kernel, &q4_0_kernel, &q5_0_kernel, &q8_0_kernel,
#ifndef CYLLAMA_VNNI // ggml's own products of Q6_K prompts are faster with VNNI
    &q6_k_kernel,
#endif
};

enum class Choice { ours, reference, upstream };

Choice choice() {
    static const Choice chosen = [] {
        const char * value = getenv("CYLLAMA_KERNELS");
        const std::string name = value ? value : "";
        return name == "upstream" ? Choice::upstream : name == "reference" ? Choice::reference : Choice::ours;
    }();
    return chosen;
}

const Kernel * kernel_of(const ggml_tensor * weights) {
    if (ggml_n_dims(weights) != 2 || !ggml_is_contiguous(weights)) {
        return nullptr;
    }
    for (const Kernel * kernel : KERNELS) {
        if (kernel->type == weights->type) {
            return weights->ne[1] % ROWS == 0 || kernel->row ? kernel : nullptr; // vocabularies have any size
        }
    }
    return nullptr;
}

// Embeddings that are the output matrix as well: llama.cpp keeps a second copy of them for a buffer type. ggml's own
// buffer type has that copy for two types of weights; for others it would cost memory that upstream does not need.
bool needs_second_copy(const ggml_tensor * weights) {
    return strcmp(weights->name, "token_embd.weight") == 0 && weights->type != GGML_TYPE_Q4_0 &&
           weights->type != GGML_TYPE_Q4_K;
}

int64_t n_panels_of(const ggml_tensor * weights) {
    return (weights->ne[1] + ROWS - 1) / ROWS; // the last may have fewer rows
}

// Looks up rows of embeddings that are the output matrix as well. llama.cpp keeps its own copy of those.
bool has_rows(const ggml_tensor * weights) {
    const Kernel * kernel = kernel_of(weights);
    return kernel && kernel->row && strcmp(weights->name, "token_embd.weight") != 0;
}

// The product of one weight matrix and all rows of activations, which all dimensions of src[1] count.
class Traits : public ggml::cpu::tensor_traits {
    const Kernel & kernel;

  public:
    explicit Traits(const Kernel & kernel) : kernel(kernel) {}

    void repack(const ggml_tensor * weights, const void * data) const {
        const int64_t n_blocks = weights->ne[0] / kernel.block;
        const size_t  size     = ROWS * weights->nb[1];
        for (int64_t i = 0; i < weights->ne[1] / ROWS; i++) {
            kernel.repack((const uint8_t *) data + i * size, n_blocks, (uint8_t *) weights->data + i * size);
        }
        if (const size_t rest = ggml_nbytes(weights) % size) {
            std::vector<uint8_t> rows(size);
            const size_t start = ggml_nbytes(weights) - rest;
            memcpy(rows.data(), (const uint8_t *) data + start, rest);
            kernel.repack(rows.data(), n_blocks, (uint8_t *) weights->data + start);
        }
    }

    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        if (op->op == GGML_OP_GET_ROWS) {
            size = 0;
            return true;
        }
        if (op->op != GGML_OP_MUL_MAT) {
            return false;
        }
        size = ggml_nelements(op->src[1]) / kernel.block * kernel.activation_size;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op == GGML_OP_GET_ROWS) {
            get_rows(params, op);
            return true;
        }
        if (op->op != GGML_OP_MUL_MAT) {
            return false;
        }
        const int64_t n_panels = n_panels_of(op->src[0]);
        // Threads take what they find: four parts for each. Parts of a multiple of one panel.
        const int64_t n_parts = params->nth == 1 ? 1 : std::min<int64_t>(n_panels, 4 * params->nth);
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        quantize_rows(params, op->src[1]);
        ggml_barrier(params->threadpool);
        for (int64_t part = params->ith; part < n_parts; part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            multiply(params, op, part * n_panels / n_parts, (part + 1) * n_panels / n_parts);
        }
        return true;
    }

  private:
    void get_rows(const ggml_compute_params * params, const ggml_tensor * op) const {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * indices = op->src[1];
        for (int64_t i = params->ith; i < indices->ne[0]; i += params->nth) {
            const int64_t row = *(const int32_t *) ((const char *) indices->data + i * indices->nb[0]);
            GGML_ASSERT(row >= 0 && row < weights->ne[1]);
            const uint8_t * panel = (const uint8_t *) weights->data + row / ROWS * ROWS * weights->nb[1];
            kernel.row(panel, weights->ne[0] / kernel.block, row % ROWS, (float *) ((char *) op->data + i * op->nb[1]));
        }
    }

    void quantize_rows(const ggml_compute_params * params, const ggml_tensor * source) const {
        const int64_t n_blocks = source->ne[0] / kernel.block;
        const size_t  size     = kernel.activation_size;
        for (int64_t i = params->ith; i < ggml_nrows(source); i += params->nth) {
            const int64_t i1 = i % source->ne[1], i2 = i / source->ne[1] % source->ne[2];
            const int64_t i3 = i / source->ne[1] / source->ne[2];
            const char * row = (const char *) source->data + i1 * source->nb[1] + i2 * source->nb[2] + i3 * source->nb[3];
            char * to = (char *) params->wdata + i * n_blocks * size;
            if (source->nb[0] == sizeof(float)) {
                kernel.quantize((const float *) row, n_blocks, to);
                continue;
            }
            for (int64_t j = 0; j < n_blocks; j++) {
                float values[BLOCK];
                for (int64_t k = 0; k < kernel.block; k++) {
                    values[k] = *(const float *) (row + (j * kernel.block + k) * source->nb[0]);
                }
                kernel.quantize(values, 1, to + j * size);
            }
        }
    }

    void multiply(const ggml_compute_params * params, const ggml_tensor * op, int64_t begin, int64_t end) const {
        const ggml_tensor * weights = op->src[0];
        const int64_t n_blocks = weights->ne[0] / kernel.block, n_rows = ggml_nrows(op->src[1]);
        const int64_t row_size = n_blocks * kernel.activation_size;
        const Product product = choice() == Choice::reference ? kernel.reference : kernel.product;
        // Activations that stay in the second cache while the panels pass.
        const int64_t n_kept = std::max<int64_t>(BATCH, 196608 / row_size / BATCH * BATCH);
        for (int64_t first = 0; first < n_rows; first += n_kept) {
            for (int64_t i = begin; i < end; i++) {
                const uint8_t * panel = (const uint8_t *) weights->data + i * ROWS * weights->nb[1];
                for (int64_t row = first; row < std::min(first + n_kept, n_rows); row += BATCH) {
                    const int n = (int) std::min<int64_t>(BATCH, std::min(first + n_kept, n_rows) - row);
                    const void * rows[BATCH];
                    float * outputs[BATCH];
                    float   last[BATCH][ROWS];
                    const int64_t n_outputs = std::min(ROWS, weights->ne[1] - i * ROWS);
                    for (int c = 0; c < n; c++) {
                        rows[c] = (const char *) params->wdata + (row + c) * row_size;
                        outputs[c] = n_outputs == ROWS ? output(op, row + c) + i * ROWS : last[c];
                    }
                    product(panel, n_blocks, rows, n, outputs);
                    for (int c = 0; c < n && n_outputs < ROWS; c++) {
                        memcpy(output(op, row + c) + i * ROWS, last[c], n_outputs * sizeof(float));
                    }
                }
            }
        }
    }

    static float * output(const ggml_tensor * op, int64_t row) {
        const int64_t i1 = row % op->ne[1], i2 = row / op->ne[1] % op->ne[2], i3 = row / op->ne[1] / op->ne[2];
        return (float *) ((char *) op->data + i1 * op->nb[1] + i2 * op->nb[2] + i3 * op->nb[3]);
    }
};

Traits * traits_of(const ggml_tensor * weights) {
    static std::vector<Traits> traits = [] {
        std::vector<Traits> all;
        for (const Kernel * kernel : KERNELS) {
            all.emplace_back(*kernel);
        }
        return all;
    }();
    const Kernel * kernel = kernel_of(weights);
    return kernel ? &traits[std::find(std::begin(KERNELS), std::end(KERNELS), kernel) - KERNELS] : nullptr;
}

ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    tensor->extra = traits_of(tensor);
    return GGML_STATUS_SUCCESS;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    GGML_ASSERT(tensor->extra);
    ((Traits *) tensor->extra)->repack(tensor, data);
}

const char * name_of(ggml_backend_buffer_type_t) {
    return "CPU_CYLLAMA";
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft              = type;
        buffer->iface.init_tensor = init_tensor;
        buffer->iface.set_tensor  = set_tensor;
        buffer->iface.get_tensor  = nullptr;
        buffer->iface.cpy_tensor  = nullptr;
    }
    return buffer;
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 64;
}

size_t allocated_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return kernel_of(tensor) ? n_panels_of(tensor) * ROWS * tensor->nb[1] : ggml_nbytes(tensor);
}

class BufferType : public ggml::cpu::extra_buffer_type {
    // Products with an expert's rows (GGML_OP_MUL_MAT_ID) are upstream's.
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * source = op->src[1];
        if (op->op == GGML_OP_GET_ROWS) {
            return is_ours(op->src[0]) && has_rows(op->src[0]) && source->type == GGML_TYPE_I32 &&
                   ggml_n_dims(source) == 1 && (!source->buffer || ggml_backend_buft_is_host(source->buffer->buft));
        }
        return op->op == GGML_OP_MUL_MAT && is_ours(op->src[0]) && kernel_of(op->src[0]) &&
               !needs_second_copy(op->src[0]) && source->type == GGML_TYPE_F32 && (!source->buffer || ggml_backend_buft_is_host(source->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        const bool is_served = op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_GET_ROWS;
        return is_served && is_ours(op->src[0]) ? (Traits *) op->src[0]->extra : nullptr;
    }

    static bool is_ours(const ggml_tensor * weights) {
        return weights->buffer && weights->buffer->buft == cyllama_kernels_buffer_type();
    }
};

} // namespace
} // namespace cyllama

ggml_backend_buffer_type_t cyllama_kernels_buffer_type(void) {
    static ggml_backend_buffer_type type = {
        /* .iface   = */ { cyllama::name_of, cyllama::allocate, nullptr, cyllama::alignment, nullptr, cyllama::allocated_size, nullptr, nullptr },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ new cyllama::BufferType(),
    };
    return cyllama::choice() == cyllama::Choice::upstream ? nullptr : &type;
}

const char * cyllama_kernels_types(void) {
    static const std::string names = [] {
        bool has_amx = false; // its buffer type is preferred, and lacks one of the types
        for (ggml_backend_buffer_type_t type : ggml_backend_cpu_get_extra_buffer_types()) {
            has_amx |= strcmp(ggml_backend_buft_name(type), "AMX") == 0;
        }
        std::string names;
        for (const cyllama::Kernel * kernel : cyllama::KERNELS) {
            if (has_amx && kernel->type != GGML_TYPE_Q5_0) {
                continue;
            }
            names += (names.empty() ? "" : ",") + std::string(ggml_type_name(kernel->type));
        }
        return names;
    }();
    return cyllama_kernels_buffer_type() ? names.c_str() : nullptr;
}

#else

ggml_backend_buffer_type_t cyllama_kernels_buffer_type(void) {
    return nullptr;
}

const char * cyllama_kernels_types(void) {
    return nullptr;
}

#endif
