#include "cyllama_kernels.h"

#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "amx.h"
#include "simd.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#if defined(__linux__)
#    include <sys/mman.h>
#    include <unistd.h>
#endif

namespace cyllama {
namespace {

const Kernel * const KERNELS[] = {
    &q4_k_kernel, &q5_k_kernel, &q6_k_kernel, &iq4_xs_kernel, &q4_0_kernel, &q5_0_kernel, &q8_0_kernel,
};

constexpr int64_t TILE = 4096; // columns that a prompt's products take at a time
#ifdef CYLLAMA_VNNI
constexpr int64_t KEPT = 393216; // bytes of activations that stay in the second cache while the panels pass
#else
constexpr int64_t KEPT = 196608; // processors without VNNI have a smaller cache
#endif

// In tiles: columns at a time, rows of activations at most, and bytes of them that stay in the second cache.
constexpr int64_t TILED_COLUMNS = 2048, TILED_MOST = 512, TILED_KEPT = 1048576;

constexpr int64_t REORDERED = 262144; // bytes of weights in ggml's own format that a thread reorders at a time

} // namespace

Choice choice() {
    static const Choice chosen = [] {
        const char * value = getenv("CYLLAMA_KERNELS");
        const std::string name = value ? value : "";
        return name == "upstream" ? Choice::upstream : name == "reference" ? Choice::reference : Choice::ours;
    }();
    return chosen;
}

namespace {

// The third dimension counts experts.
const Kernel * kernel_of(const ggml_tensor * weights) {
    if (ggml_n_dims(weights) > 3 || !ggml_is_contiguous(weights)) {
        return nullptr;
    }
    const bool is_full = weights->ne[1] % ROWS == 0;
    for (const Kernel * kernel : KERNELS) {
        if (kernel->type == weights->type) {
            return is_full || (kernel->row && weights->ne[2] == 1) ? kernel : nullptr; // vocabularies have any size
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
    return kernel && kernel->row && weights->ne[2] == 1 && strcmp(weights->name, "token_embd.weight") != 0;
}

bool is_ours(const ggml_tensor * weights) {
    return weights->buffer && weights->buffer->buft == cyllama_kernels_buffer_type();
}

// Which results an expert computes: a slot is a row of activations and of results of GGML_OP_MUL_MAT_ID.
struct Slots {
    int32_t * begin; // of each expert, and the end
    int32_t * slots; // by expert

    Slots(const ggml_tensor * op, char * at) : begin((int32_t *) at), slots(begin + op->src[0]->ne[2] + 1) {}

    static size_t size(const ggml_tensor * op) {
        return (op->src[0]->ne[2] + 1 + ggml_nelements(op->src[2])) * sizeof(int32_t);
    }

    void sort(const ggml_tensor * op) {
        const ggml_tensor * chosen = op->src[2];
        const int64_t n_experts = op->src[0]->ne[2];
        std::fill(begin, begin + n_experts + 1, 0);
        for (int64_t i = 0; i < ggml_nelements(chosen); i++) {
            const int32_t expert = expert_of(chosen, i);
            GGML_ASSERT(expert >= 0 && expert < n_experts);
            begin[expert + 1]++;
        }
        for (int64_t i = 0; i < n_experts; i++) {
            begin[i + 1] += begin[i];
        }
        for (int64_t i = 0; i < ggml_nelements(chosen); i++) {
            slots[begin[expert_of(chosen, i)]++] = (int32_t) i;
        }
        for (int64_t i = n_experts; i > 0; i--) { // each begin has become the next one
            begin[i] = begin[i - 1];
        }
        begin[0] = 0;
    }

  private:
    static int32_t expert_of(const ggml_tensor * chosen, int64_t i) {
        const int64_t i0 = i % chosen->ne[0], i1 = i / chosen->ne[0];
        return *(const int32_t *) ((const char *) chosen->data + i0 * chosen->nb[0] + i1 * chosen->nb[1]);
    }
};

// The products of one weight matrix and all rows of activations, or of each expert's matrix and the rows for it.
class Traits : public ggml::cpu::tensor_traits {
    const Kernel & kernel;

  public:
    explicit Traits(const Kernel & kernel) : kernel(kernel) {}

    // Whether weights in ggml's own format are reordered for this product.
    bool pays(const ggml_tensor * op) const {
        const ggml_tensor * weights = op->src[0], * source = op->src[1];
        return op->op == GGML_OP_MUL_MAT && weights->buffer && ggml_backend_buft_is_host(weights->buffer->buft) &&
               weights->ne[1] % ROWS == 0 && weights->ne[2] == 1 && source->type == GGML_TYPE_F32 &&
               ggml_nrows(source) >= kernel.many_rows;
    }

    void repack(const ggml_tensor * weights, const void * data) const {
        const int64_t n_blocks = weights->ne[0] / kernel.block;
        const size_t  size     = ROWS * weights->nb[1];
        for (int64_t i = 0; i < ggml_nrows(weights) / ROWS; i++) {
            kernel.repack((const uint8_t *) data + i * size, n_blocks, (uint8_t *) weights->data + i * size);
        }
        if (const size_t rest = ggml_nbytes(weights) % size) {
            std::vector<uint8_t> rows(size);
            const size_t start = ggml_nbytes(weights) - rest;
            memcpy(rows.data(), (const uint8_t *) data + start, rest);
            kernel.repack(rows.data(), n_blocks, (uint8_t *) weights->data + start);
        }
    }

    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        if (op->op == GGML_OP_GET_ROWS) {
            size = 0;
            return true;
        }
        if (op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID) {
            return false;
        }
        size = ALIGNMENT + activations_size(op);
        if (op->op == GGML_OP_MUL_MAT_ID) {
            size += Slots::size(op);
        } else if (!is_ours(op->src[0])) {
            size += n_threads * count_reordered(op->src[0]) * ROWS * op->src[0]->nb[1];
        }
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op == GGML_OP_GET_ROWS) {
            get_rows(params, op);
            return true;
        }
        if (op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID) {
            return false;
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        quantize_rows(params, op->src[1]);
        if (op->op == GGML_OP_MUL_MAT) {
            if (params->ith == 0) {
                clear_rest(op->src[1], aligned(params->wdata));
            }
            ggml_barrier(params->threadpool);
            multiply_all(params, op, is_ours(op->src[0]));
        } else {
            Slots slots(op, aligned(params->wdata) + activations_size(op));
            if (params->ith == 0) {
                slots.sort(op);
            }
            ggml_barrier(params->threadpool);
            multiply_experts(params, op, slots);
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

    // Tiles read rows at the same time, which at a distance of a power of two would share lines of the cache.
    size_t row_size(const ggml_tensor * source) const {
        return source->ne[0] / kernel.block * kernel.activation_size + (kernel.tiled ? ALIGNMENT : 0);
    }

    // Tiles read whole groups of rows.
    size_t activations_size(const ggml_tensor * op) const {
        return (ggml_nrows(op->src[1]) + (kernel.tiled ? TILED_ROWS - 1 : 0)) * row_size(op->src[1]);
    }

    void quantize_rows(const ggml_compute_params * params, const ggml_tensor * source) const {
        const int64_t n_blocks = source->ne[0] / kernel.block;
        const size_t  size     = kernel.activation_size;
        const Quantize quantize = choice() == Choice::reference ? kernel.quantize_reference : kernel.quantize;
        for (int64_t i = params->ith; i < ggml_nrows(source); i += params->nth) {
            const char * row = row_of(source, i);
            char * to = aligned(params->wdata) + i * row_size(source);
            if (source->nb[0] == sizeof(float)) {
                quantize((const float *) row, n_blocks, to);
                continue;
            }
            for (int64_t j = 0; j < n_blocks; j++) {
                float values[BLOCK];
                for (int64_t k = 0; k < kernel.block; k++) {
                    values[k] = *(const float *) (row + (j * kernel.block + k) * source->nb[0]);
                }
                quantize(values, 1, to + j * size);
            }
        }
    }

    // Threads take what they find: four parts for each. Parts of a multiple of one panel.
    static int64_t count_parts(const ggml_compute_params * params, int64_t n_panels) {
        return params->nth == 1 ? 1 : std::min<int64_t>(n_panels, 4 * params->nth);
    }

    // How many panels a thread reorders at a time.
    static int64_t count_reordered(const ggml_tensor * weights) {
        return std::clamp<int64_t>(REORDERED / (ROWS * weights->nb[1]), 1, weights->ne[1] / ROWS);
    }

    // A rest that leaves more than half of a tile empty is slower in it.
    int64_t rows_in_tiles(int64_t n_rows) const {
        if (!kernel.tiled || choice() != Choice::ours || !has_tiles()) {
            return 0;
        }
        const int64_t rest = n_rows % TILED_ROWS;
        return rest >= TILED_ROWS / 2 && n_rows > TILED_ROWS ? n_rows : n_rows - rest;
    }

    // Numbers that happen to follow the activations may be of the slow kind near zero.
    void clear_rest(const ggml_tensor * source, char * activations) const {
        const int64_t n_rows = ggml_nrows(source), n_tiled = rows_in_tiles(n_rows);
        if (n_tiled % TILED_ROWS != 0) {
            memset(activations + n_rows * row_size(source), 0, (TILED_ROWS - n_tiled % TILED_ROWS) * row_size(source));
        }
    }

    void multiply_all(const ggml_compute_params * params, const ggml_tensor * op, bool is_reordered) const {
        const ggml_tensor * weights = op->src[0];
        const int64_t n_panels = n_panels_of(weights), n_parts = count_parts(params, n_panels);
        const int64_t row_size = this->row_size(op->src[1]);
        const auto with   = [&](int64_t row) { return aligned(params->wdata) + row * row_size; };
        const auto output = [&](int64_t row) { return (float *) row_of(op, row); };
        const auto * data = (const uint8_t *) weights->data;
        const int64_t n_rows = ggml_nrows(op->src[1]), n_now = is_reordered ? n_panels : count_reordered(weights);
        const int64_t n_blocks = weights->ne[0] / kernel.block, panel_size = ROWS * weights->nb[1];
        auto * panels = (uint8_t *) aligned(params->wdata) + activations_size(op) + params->ith * n_now * panel_size;
        const int64_t n_tiled = rows_in_tiles(n_rows);
        std::optional<TileShapes> shapes;
        if (n_tiled > 0) {
            shapes.emplace(kernel.tiled->columns);
        }
        const auto multiply_panels = [&](const uint8_t * from, int64_t begin, int64_t end) {
            if (n_tiled > 0) {
                multiply_in_tiles(weights, from, begin, end, n_tiled, with(0), row_size, output);
            }
            if (n_tiled < n_rows) {
                multiply(weights, from, begin, end, n_rows - n_tiled, [&](int64_t row) { return with(n_tiled + row); },
                         [&](int64_t row) { return output(n_tiled + row); });
            }
        };
        for (int64_t part = params->ith; part < n_parts; part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t begin = part * n_panels / n_parts, end = (part + 1) * n_panels / n_parts;
            if (is_reordered) {
                multiply_panels(data + begin * panel_size, begin, end);
                continue;
            }
            for (int64_t first = begin; first < end; first += n_now) {
                const int64_t last = std::min(first + n_now, end);
                for (int64_t i = first; i < last; i++) {
                    kernel.repack(data + i * panel_size, n_blocks, panels + (i - first) * panel_size);
                }
                multiply_panels(panels, first, last);
            }
        }
    }

    static void copy_outputs(float * to, const float * from, int64_t n) {
        if (n == ROWS) {
            memcpy(to, from, ROWS * sizeof(float)); // a constant size is one instruction
        } else {
            memcpy(to, from, n * sizeof(float));
        }
    }

    // As multiply(), of rows that follow each other.
    template <typename Output>
    void multiply_in_tiles(const ggml_tensor * weights, const uint8_t * panels, int64_t begin, int64_t end,
                           int64_t n_rows, const char * rows, int64_t row_size, const Output & output) const {
        alignas(64) uint8_t groups[TILED_SIZE];
        alignas(64) float totals[TILED_MOST][ROWS];
        const int64_t panel_size = ROWS * weights->nb[1], n_blocks = weights->ne[0] / kernel.block;
        const int64_t group_size = panel_size / n_blocks, n_tile = std::min(n_blocks, TILED_COLUMNS / kernel.block);
        const int64_t kept = std::min<int64_t>(TILED_MOST, TILED_KEPT / (n_tile * kernel.activation_size));
        const int64_t n_kept = kept / TILED_ROWS * TILED_ROWS;
        for (int64_t first = 0; first < n_rows; first += n_kept) {
            const int64_t n = std::min(n_kept, n_rows - first);
            for (int64_t tile = 0; tile < n_blocks; tile += n_tile) {
                const int64_t tile_end = std::min(tile + n_tile, n_blocks);
                for (int64_t i = begin; i < end; i++) {
                    const int64_t n_outputs = std::min<int64_t>(ROWS, weights->ne[1] - i * ROWS);
                    memset(totals, 0, parts_of(n, TILED_ROWS) * TILED_ROWS * sizeof(totals[0]));
                    for (int64_t r = 0; r < n && tile > 0; r++) {
                        copy_outputs(totals[r], output(first + r) + i * ROWS, n_outputs);
                    }
                    for (int64_t block = tile; block < tile_end; block += kernel.tiled->n_groups) {
                        const int64_t n_now = std::min(kernel.tiled->n_groups, tile_end - block);
                        kernel.tiled->unpack(panels + (i - begin) * panel_size + block * group_size, n_now, groups);
                        for (int64_t r = 0; r < n; r += TILED_ROWS) {
                            const char * from = rows + (first + r) * row_size + block * kernel.activation_size;
                            kernel.tiled->multiply(groups, n_now, from, row_size, totals + r);
                        }
                    }
                    for (int64_t r = 0; r < n; r++) {
                        copy_outputs(output(first + r) + i * ROWS, totals[r], n_outputs);
                    }
                }
            }
        }
    }

    void multiply_experts(const ggml_compute_params * params, const ggml_tensor * op, const Slots & slots) const {
        const ggml_tensor * weights = op->src[0], * source = op->src[1];
        const int64_t n_panels = weights->ne[1] / ROWS, n_parts = count_parts(params, n_panels);
        const int64_t row_size = this->row_size(op->src[1]);
        for (int64_t part = params->ith; part < n_parts * weights->ne[2];
             part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t expert = part / n_parts, i = part % n_parts;
            const int32_t * slot = slots.slots + slots.begin[expert];
            const auto with = [&](int64_t row) {
                const int64_t token = slot[row] / op->ne[1], used = slot[row] % op->ne[1] % source->ne[1];
                return aligned(params->wdata) + (token * source->ne[1] + used) * row_size;
            };
            const auto output = [&](int64_t row) { return (float *) row_of(op, slot[row]); };
            const int64_t begin = i * n_panels / n_parts, end = (i + 1) * n_panels / n_parts;
            multiply(weights, (const uint8_t *) weights->data + expert * weights->nb[2] + begin * ROWS * weights->nb[1],
                     begin, end, slots.begin[expert + 1] - slots.begin[expert], with, output);
        }
    }

    // Multiplies the panels from `begin` to `end` of a matrix, which are at `panels`; `with` and `output` return the
    // activations and the results of a row.
    template <typename With, typename Output>
    void multiply(const ggml_tensor * weights, const uint8_t * panels, int64_t begin, int64_t end, int64_t n_rows,
                  const With & with, const Output & output) const {
        const Product product = choice() == Choice::reference ? kernel.reference : kernel.product;
        const size_t  panel_size = ROWS * weights->nb[1];
        const int64_t n_blocks = weights->ne[0] / kernel.block, group_size = panel_size / n_blocks;
        const int64_t n_tile = n_rows <= BATCH ? n_blocks : std::min(n_blocks, TILE / kernel.block);
        const int64_t n_kept = std::max<int64_t>(1, KEPT / (n_tile * kernel.activation_size) / BATCH) * BATCH;
        for (int64_t block = 0; block < n_blocks; block += n_tile) {
            const int64_t n_now = std::min(n_tile, n_blocks - block);
            for (int64_t first = 0; first < n_rows; first += n_kept) {
                const int64_t last = std::min(first + n_kept, n_rows);
                for (int64_t i = begin; i < end; i++) {
                    const int64_t n_outputs = std::min<int64_t>(ROWS, weights->ne[1] - i * ROWS);
                    for (int64_t row = first; row < last; row += BATCH) {
                        const int n = (int) std::min<int64_t>(BATCH, last - row);
                        const void * rows[BATCH];
                        float * outputs[BATCH];
                        for (int c = 0; c < n; c++) {
                            rows[c]    = with(row + c) + block * kernel.activation_size;
                            outputs[c] = output(row + c) + i * ROWS;
                            prefetch_for_writing(outputs[c]);
                        }
                        float unused[ROWS] = {};
                        const int n_even = n == 1 ? 1 : (n + 1) / 2 * 2; // code for odd numbers would be as large again
                        if (n_even > n) {
                            rows[n]    = rows[n - 1];
                            outputs[n] = unused;
                        }
                        const uint8_t * groups = panels + (i - begin) * panel_size + block * group_size;
                        if (n_outputs == ROWS) {
                            product(groups, n_now, rows, n_even, outputs, block == 0, row == first);
                            continue;
                        }
                        float   part[BATCH][ROWS]; // the last panel has fewer rows
                        float * parts[BATCH];
                        for (int c = 0; c < n_even; c++) {
                            parts[c] = part[c];
                            memset(part[c], 0, sizeof(part[c]));
                            if (block > 0) {
                                memcpy(part[c], outputs[c], n_outputs * sizeof(float));
                            }
                        }
                        product(groups, n_now, rows, n_even, parts, block == 0, row == first);
                        for (int c = 0; c < n; c++) {
                            memcpy(outputs[c], part[c], n_outputs * sizeof(float));
                        }
                    }
                }
            }
        }
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

// Asks for large pages: each token reads all weights, and looking up small pages takes a fifth of that time.
void ask_for_large_pages(void * memory, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const auto page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const auto begin = ((uintptr_t) memory + page - 1) / page * page, end = ((uintptr_t) memory + size) / page * page;
    if (size >= (size_t) 2 << 20) {
        madvise((void *) begin, end - begin, MADV_HUGEPAGE); // a kernel without large pages refuses, which is no error
    }
#else
    (void) memory;
    (void) size;
#endif
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        ask_for_large_pages(ggml_backend_buffer_get_base(buffer), size);
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
    return kernel_of(tensor) ? n_panels_of(tensor) * ROWS * tensor->nb[1] * tensor->ne[2] : ggml_nbytes(tensor);
}

class BufferType : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * source = op->src[1];
        if (op->op == GGML_OP_GET_ROWS) {
            return is_ours(op->src[0]) && has_rows(op->src[0]) && source->type == GGML_TYPE_I32 &&
                   ggml_n_dims(source) == 1 && (!source->buffer || ggml_backend_buft_is_host(source->buffer->buft));
        }
        if (!is_product(op) || !is_ours(op->src[0]) || !kernel_of(op->src[0]) || needs_second_copy(op->src[0])) {
            return false;
        }
        return (op->op == GGML_OP_MUL_MAT_ID || op->src[0]->ne[2] == 1) && source->type == GGML_TYPE_F32 &&
               (!source->buffer || ggml_backend_buft_is_host(source->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_CONV_2D) {
            return convolution_traits(op);
        }
        if (!is_product(op) && op->op != GGML_OP_GET_ROWS) {
            return nullptr;
        }
        if (is_ours(op->src[0])) {
            return (Traits *) op->src[0]->extra;
        }
        if (op->op == GGML_OP_GET_ROWS) {
            return nullptr;
        }
        if (op->src[0]->type == GGML_TYPE_F16) {
            return half_traits(op);
        }
        Traits * traits = traits_of(op->src[0]);
        return traits && traits->pays(op) ? traits : nullptr;
    }

    static bool is_product(const ggml_tensor * op) {
        return op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID;
    }
};

} // namespace
} // namespace cyllama

ggml_backend_buffer_type_t cyllama_kernels_buffer_type(void) {
    static ggml_backend_buffer_type type = {
        /* .iface   = */ { cyllama::name_of, cyllama::allocate, nullptr, cyllama::alignment, nullptr,
                           cyllama::allocated_size, nullptr, nullptr },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ new cyllama::BufferType(),
    };
    return cyllama::choice() == cyllama::Choice::upstream ? nullptr : &type;
}

const char * cyllama_kernels_types(void) {
    static const std::string names = [] {
        std::string names;
        for (const cyllama::Kernel * kernel : cyllama::KERNELS) {
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
