// Products of many rows with weights of 16-bit floats. ggml's convolutions by im2col are such products as well.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "float_tiles.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace cyllama {
namespace {

constexpr int64_t GROUP  = 256;        // packed rows at a time
constexpr int64_t DEPTH  = 256;        // columns at a time
constexpr int64_t STRIDE = DEPTH + 16; // rows at a distance of a power of two would share lines of the cache
static_assert(GROUP % PANEL == 0 && DEPTH % 8 == 0);

struct Scratch { // of a thread
    float rows[TILE * STRIDE];
    float sums[GROUP / PANEL][TILE][PANEL];
};

inline void transpose(__m128i (&rows)[8]) { // 8 x 8 numbers of 16 bits
    __m128i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i]     = _mm_unpacklo_epi16(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm_unpackhi_epi16(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i]     = _mm_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        rows[2 * i]     = _mm_unpacklo_epi64(b[i], b[4 + i]);
        rows[2 * i + 1] = _mm_unpackhi_epi64(b[i], b[4 + i]);
    }
}

inline void transpose(__m256 (&rows)[8]) {
    __m256 a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i]     = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i]     = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        rows[i]     = _mm256_permute2f128_ps(b[i], b[4 + i], 0x20);
        rows[4 + i] = _mm256_permute2f128_ps(b[i], b[4 + i], 0x31);
    }
}

inline __m128i eight_halves(const ggml_tensor * tensor, const char * row, int64_t column) {
    return tensor->type == GGML_TYPE_F16
               ? load_16(row + column * sizeof(ggml_fp16_t))
               : _mm256_cvtps_ph(_mm256_loadu_ps((const float *) row + column), _MM_FROUND_TO_NEAREST_INT);
}

inline void write_eight(ggml_fp16_t * to, __m128i halves) { _mm_storeu_si128((__m128i *) to, halves); }
inline void write_eight(float * to, __m128i halves) { _mm256_storeu_ps(to, _mm256_cvtph_ps(halves)); }

// Writes rows as one panel; rows beyond the last are zero.
template <typename Value> void pack(const ggml_tensor * tensor, int64_t first, Value * panel) {
    const int64_t n_rows = std::min(PANEL, ggml_nrows(tensor) - first);
    const char * at[PANEL];
    for (int64_t r = 0; r < n_rows; r++) {
        at[r] = row_of(tensor, first + r);
    }
    for (int64_t k = 0; k < tensor->ne[0]; k += 8) {
        for (int64_t r = 0; r < PANEL; r += 8) {
            __m128i rows[8];
            for (int i = 0; i < 8; i++) {
                rows[i] = r + i < n_rows ? eight_halves(tensor, at[r + i], k) : _mm_setzero_si128();
            }
            transpose(rows);
            for (int i = 0; i < 8; i++) {
                write_eight(panel + (k + i) * PANEL + r, rows[i]);
            }
        }
    }
}

// The matrix with fewer rows is packed, which costs as much as the products with a few rows.
struct HalfProduct {
    const ggml_tensor * op;
    bool                packs_first;
    const ggml_tensor * packed;
    const ggml_tensor * other;

    explicit HalfProduct(const ggml_tensor * op)
        : op(op), packs_first(op->ne[0] < ggml_nrows(op)), packed(op->src[packs_first ? 0 : 1]),
          other(op->src[packs_first ? 1 : 0]) {}

    size_t packed_size() const {
        return parts_of(ggml_nrows(packed), PANEL) * panel_size();
    }

    size_t panel_size() const {
        return PANEL * whole_steps(packed->ne[0]) * (has_tiles() ? sizeof(float) : sizeof(ggml_fp16_t));
    }

    void pack_panel(int64_t i, char * panels) const {
        char * panel = panels + i * panel_size();
        if (has_tiles()) {
            const int64_t n_columns = packed->ne[0], n_filled = whole_steps(n_columns);
            pack(packed, i * PANEL, (float *) panel);
            memset((float *) panel + n_columns * PANEL, 0, (n_filled - n_columns) * PANEL * sizeof(float));
            split_panel((float *) panel, n_filled);
        } else {
            pack(packed, i * PANEL, (ggml_fp16_t *) panel);
        }
    }

    // Computes the results of a tile of rows and a group of packed rows.
    void compute(int64_t tile, int64_t group, const char * panels, Scratch & scratch) const {
        const int64_t n_columns = other->ne[0], n_rows = std::min(TILE, ggml_nrows(other) - tile);
        const int64_t n_packed = std::min(GROUP, ggml_nrows(packed) - group), n_panels = parts_of(n_packed, PANEL);
        const int64_t at_once = rows_at_once(), n_filled = parts_of(n_rows, at_once) * at_once;
        memset(scratch.rows + n_rows * STRIDE, 0, (n_filled - n_rows) * STRIDE * sizeof(float));
        memset(scratch.sums, 0, n_panels * sizeof(scratch.sums[0]));
        const PanelProduct product = panel_product<STRIDE, ggml_fp16_t>();
        for (int64_t column = 0; column < n_columns; column += DEPTH) {
            const int64_t depth = std::min(DEPTH, n_columns - column), filled = whole_steps(depth);
            for (int64_t r = 0; r < n_rows; r++) {
                const char * row = row_of(other, tile + r);
                for (int64_t k = 0; k < depth; k += 8) {
                    const __m128i values = eight_halves(other, row, column + k);
                    _mm256_storeu_ps(scratch.rows + r * STRIDE + k, _mm256_cvtph_ps(values));
                }
                memset(scratch.rows + r * STRIDE + depth, 0, (filled - depth) * sizeof(float));
                split_row(scratch.rows + r * STRIDE, filled);
            }
            for (int64_t p = 0; p < n_panels; p++) {
                const char * panel = panels + (group / PANEL + p) * panel_size();
                panel += column * panel_size() / whole_steps(n_columns);
                for (int64_t r = 0; r < n_rows; r += at_once) {
                    product(scratch.rows + r * STRIDE, panel, filled, scratch.sums[p] + r);
                }
            }
        }
        for (int64_t p = 0; p < n_panels; p++) {
            const int64_t row = group + p * PANEL, n_results = std::min(PANEL, n_packed - p * PANEL);
            if (packs_first) {
                for (int64_t r = 0; r < n_rows; r++) {
                    memcpy((float *) row_of(op, tile + r) + row, scratch.sums[p][r], n_results * sizeof(float));
                }
            } else {
                write_transposed(scratch.sums[p], tile, n_rows, row, n_results);
            }
        }
    }

    void write_transposed(const float (*sums)[PANEL], int64_t tile, int64_t n_rows, int64_t row,
                          int64_t n_results) const {
        for (int64_t r = 0; r < n_rows; r += 8) {
            const int64_t n_now = std::min<int64_t>(8, n_rows - r);
            for (int64_t i = 0; i < n_results; i += 8) {
                __m256 values[8];
                for (int k = 0; k < 8; k++) {
                    values[k] = _mm256_loadu_ps(sums[r + k] + i); // rows beyond the last are in the tile
                }
                transpose(values);
                for (int64_t k = 0; k < std::min<int64_t>(8, n_results - i); k++) {
                    memcpy((float *) row_of(op, row + i + k) + tile + r, &values[k], n_now * sizeof(float));
                }
            }
        }
    }
};

class HalfTraits : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = HalfProduct(op).packed_size() + n_threads * sizeof(Scratch) + ALIGNMENT;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const HalfProduct product(op);
        const int64_t n_packed = ggml_nrows(product.packed), n_tiles = parts_of(ggml_nrows(product.other), TILE);
        const int64_t n_parts = n_tiles * parts_of(n_packed, GROUP);
        char * panels = aligned(params->wdata);
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        for (int64_t panel = params->ith; panel * PANEL < n_packed; panel += params->nth) {
            product.pack_panel(panel, panels);
        }
        ggml_barrier(params->threadpool);
        auto & scratch = ((Scratch *) (panels + product.packed_size()))[params->ith];
        const TileShapes shapes;
        for (int64_t part = params->ith; part < n_parts; part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            product.compute(part % n_tiles * TILE, part / n_tiles * GROUP, panels, scratch);
        }
        return true;
    }
};

// Whether panels of so many rows have few empty ones; ggml's products are faster otherwise.
bool fills_panels(int64_t n_rows) {
    return 5 * n_rows >= 4 * PANEL * parts_of(n_rows, PANEL);
}

} // namespace

ggml::cpu::tensor_traits * half_traits(const ggml_tensor * op) {
    static HalfTraits traits;
    const ggml_tensor * first = op->src[0], * second = op->src[1];
    const bool has_types = first->type == GGML_TYPE_F16 && op->type == GGML_TYPE_F32 &&
                           (second->type == GGML_TYPE_F32 || second->type == GGML_TYPE_F16);
    return op->op == GGML_OP_MUL_MAT && has_types && first->ne[2] * first->ne[3] == 1 && first->ne[0] % 8 == 0 &&
                   fills_panels(std::min(first->ne[1], ggml_nrows(second))) && first->nb[0] == sizeof(ggml_fp16_t) &&
                   second->nb[0] == ggml_type_size(second->type) && first->buffer &&
                   ggml_backend_buft_is_host(first->buffer->buft)
               ? &traits
               : nullptr;
}

} // namespace cyllama

#endif
