// Q6_K: a value is d * scale * (q - 32), with q of 6 bits, and a scale of 8 bits for 16 columns.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "integer_tiles.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// 16 rows of 256 columns; the size is that of 16 blocks of ggml's format.
struct Four { // four columns of each of four parts of 32 columns
    uint8_t high[4 * ROWS];   // two bits of each part
    uint8_t low[2][4 * ROWS]; // [part % 2]: the low bits are of part 0 or 1, the high ones of part 2 or 3
};

struct Group {
    uint16_t d[ROWS];
    int8_t   scales[16][ROWS];
    Four     fours[2][8]; // of 128 columns each
};
static_assert(sizeof(Group) == ROWS * sizeof(block_q6_K), "a panel has the size of its rows");

void repack(const uint8_t * rows, int64_t n_blocks, uint8_t * panel) {
    for (int64_t i = 0; i < n_blocks; i++) {
        Group group;
        memset(&group, 0, sizeof(group));
        for (int64_t r = 0; r < ROWS; r++) {
            block_q6_K block;
            memcpy(&block, rows + (r * n_blocks + i) * sizeof(block), sizeof(block));
            group.d[r] = block.d;
            for (int j = 0; j < 16; j++) {
                group.scales[j][r] = block.scales[j];
            }
            for (int h = 0; h < 2; h++) {
                for (int t = 0; t < 8; t++) {
                    Four & four = group.fours[h][t];
                    memcpy(four.high + 4 * r, block.qh + 32 * h + 4 * t, 4);
                    memcpy(four.low[0] + 4 * r, block.ql + 64 * h + 4 * t, 4);
                    memcpy(four.low[1] + 4 * r, block.ql + 64 * h + 32 + 4 * t, 4);
                }
            }
        }
        memcpy(panel + i * sizeof(group), &group, sizeof(group));
    }
}

void reference(const uint8_t * panel, int64_t n_blocks, const void * const * rows, int n, float * const * outputs,
               bool first, bool) {
    for (int c = 0; c < n; c++) {
        for (int64_t r = 0; r < ROWS; r++) {
            float total = first ? 0 : outputs[c][r];
            for (int64_t i = 0; i < n_blocks; i++) {
                const Group & group = ((const Group *) panel)[i];
                const Activations & with = ((const Activations *) rows[c])[i];
                int32_t sum = 0;
                for (int k = 0; k < BLOCK; k++) {
                    const int j = k / 32, t = k % 32 / 4, at = 4 * r + k % 4;
                    const Four & four = group.fours[j / 4][t];
                    const int low  = four.low[j % 2][at] >> (j % 4 / 2 * 4) & 15;
                    const int high = four.high[at] >> (j % 4 * 2) & 3;
                    sum += group.scales[k / 16][r] * ((low | high << 4) - 32) * with.values[k];
                }
                total = fmaf(with.scale, half_to_float(group.d[r]) * (float) sum, total);
            }
            outputs[c][r] = total;
        }
    }
}

#ifdef CYLLAMA_VNNI

// Six bits of four columns of a part.
inline __m512i value_bits(__m512i low, __m512i high, int part) {
    const __m512i upper = part == 0   ? _mm512_slli_epi16(high, 4)
                          : part == 1 ? _mm512_slli_epi16(high, 2)
                          : part == 2 ? high
                                      : _mm512_srli_epi16(high, 2);
    const __m512i lower = _mm512_and_si512(part >= 2 ? _mm512_srli_epi16(low, 4) : low, _mm512_set1_epi8(15));
    return or_and(lower, upper, _mm512_set1_epi8(0x30));
}

// Adds the products of 16 columns of P parts, which have a scale each: of part `first`, and of the part that has the
// upper bits of the same bytes.
template <int N, int P>
inline void add_16(const Group & group, int half, int first, int s, const Activations * const * with,
                   __m512i (&sums)[N]) {
    const int j = 8 * half + 2 * first + s; // of the scale; the other part's is 4 further
    __m512i products[P][N];
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 8
        for (int c = 0; c < N; c++) {
            products[p][c] = _mm512_set1_epi32(with[c]->offsets16[j + 4 * p]);
        }
    }
#pragma GCC unroll 4
    for (int t = 4 * s; t < 4 * s + 4; t++) {
        const Four & values = group.fours[half][t];
        const __m512i low = in_register(load_64(values.low[first % 2])), high = in_register(load_64(values.high));
        for (int p = 0; p < P; p++) {
            const __m512i w = value_bits(low, high, first + 2 * p);
#pragma GCC unroll 8
            for (int c = 0; c < N; c++) {
                const int8_t * y = with[c]->values + 128 * half + 32 * (first + 2 * p) + 4 * t;
                products[p][c] = _mm512_dpbusd_epi32(products[p][c], w, broadcast_16(y));
            }
        }
    }
    for (int p = 0; p < P; p++) {
        const __m512i scale = _mm512_cvtepi8_epi32(load_16(group.scales[j + 4 * p]));
#pragma GCC unroll 8
        for (int c = 0; c < N; c++) {
            sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(products[p][c], scale));
        }
    }
}

// Adds the products of 16 columns of each part of 128.
template <int N>
inline void add_64(const Group & group, int half, int s, const Activations * const * with, __m512i (&sums)[N]) {
    constexpr int P = N <= 4 ? 2 : 1; // more do not fit in the registers
#pragma GCC unroll 4
    for (int first = 0; first < 4 / P; first++) {
        add_16<N, P>(group, half, first, s, with, sums);
    }
}

template <int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs,
              bool first, bool from_memory) {
    __m512 totals[N];
    for (int c = 0; c < N; c++) {
        totals[c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(outputs[c]);
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
        }
        __m512i sums[N];
        for (int c = 0; c < N; c++) {
            sums[c] = _mm512_setzero_si512();
        }
        for (int half = 0; half < 2; half++) {
            for (int s = 0; s < 2; s++) {
                prefetch_ahead<N, 4>(group, from_memory, 2 * half + s);
                add_64<N>(group, half, s, with, sums);
            }
        }
        const __m512 d = _mm512_cvtph_ps(load(group.d));
        for (int c = 0; c < N; c++) {
            const __m512 value = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sums[c]));
            totals[c] = _mm512_fmadd_ps(_mm512_set1_ps(with[c]->scale), value, totals[c]);
        }
    }
    for (int c = 0; c < N; c++) {
        _mm512_storeu_ps(outputs[c], totals[c]);
    }
}

#ifdef CYLLAMA_TILES

void unpack(const uint8_t * panel, int64_t n_blocks, uint8_t * groups) {
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        auto & to = ((TiledGroup *) groups)[i];
        for (int j = 0; j < 16; j++) { // of the scales: 16 columns
            const TiledGroup::Factors factors(load_16(group.scales[j]));
            const int half = j / 8, part = j % 8 / 2;
            for (int t = j % 2 * 4; t < j % 2 * 4 + 4; t++) {
                const Four & values = group.fours[half][t];
                const __m512i w = value_bits(load_64(values.low[part % 2]), load_64(values.high), part);
                to.put(128 * half + 32 * part + 4 * t, _mm512_sub_epi8(w, _mm512_set1_epi8(32)), factors);
            }
        }
        _mm512_store_ps(to.d, _mm512_cvtph_ps(load(group.d)));
    }
}

#endif

#else

// Six bits of four columns of a part, for 8 rows from `row` on.
inline __m256i value_bits(const Four & values, int part, int row) {
    const __m256i four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);
    const __m256i low = load(values.low[part % 2] + 4 * row), high = load(values.high + 4 * row);
    const __m256i upper = part == 0   ? _mm256_slli_epi16(high, 4)
                          : part == 1 ? _mm256_slli_epi16(high, 2)
                          : part == 2 ? high
                                      : _mm256_srli_epi16(high, 2);
    return _mm256_or_si256(_mm256_and_si256(part >= 2 ? _mm256_srli_epi16(low, 4) : low, four),
                           _mm256_and_si256(upper, two));
}

// Adds the products of eight columns of a part. Two sums of pairs stay below 2^15: 2 * 2 * 63 * 127 = 32004.
template <int N>
inline void add_8(const Four * values, int part, const __m256i (&scale)[2], const Activations * const * with, int at,
                  __m256i (&sums)[N][2]) {
    __m256i products[N][2];
#pragma GCC unroll 2
    for (int u = 0; u < 2; u++) {
        const __m256i w[2] = { value_bits(values[u], part, 0), value_bits(values[u], part, 8) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + at + 4 * u);
            for (int h = 0; h < 2; h++) {
                const __m256i product = _mm256_maddubs_epi16(w[h], y);
                products[c][h] = in_order(u == 0 ? product : _mm256_add_epi16(products[c][h], product));
            }
        }
    }
    for (int c = 0; c < N; c++) {
        for (int h = 0; h < 2; h++) {
            sums[c][h] = in_order(_mm256_add_epi32(sums[c][h], _mm256_madd_epi16(products[c][h], scale[h])));
        }
    }
}

// Adds the products of 16 columns of each part of 128: these have a scale each.
template <int N>
inline void add_64(const Group & group, int half, int s, const Activations * const * with, __m256i (&sums)[N][2]) {
    __m256i scale[4][2];
    for (int part = 0; part < 4; part++) {
        const __m128i scales = _mm_loadu_si128((const __m128i *) group.scales[8 * half + 2 * part + s]);
        scale[part][0] = pairs_signed<0>(scales);
        scale[part][1] = pairs_signed<1>(scales);
    }
    for (int t = 4 * s; t < 4 * s + 4; t += 2) {
        const Four * values = &group.fours[half][t];
#pragma GCC unroll 4
        for (int part = 0; part < 4; part++) {
            add_8<N>(values, part, scale[part], with, 128 * half + 32 * part + 4 * t, sums);
        }
    }
}

// What 32 * scale, the offset of the values, contributes: minus 32 times this.
template <int N>
inline void offsets_of(const Group & group, const Activations * const * with, __m256i (&sums)[N][2]) {
    for (int j = 0; j < 8; j++) {
        const __m128i scales[2] = { _mm_loadu_si128((const __m128i *) group.scales[2 * j]),
                                    _mm_loadu_si128((const __m128i *) group.scales[2 * j + 1]) };
        const __m256i pairs[2] = { _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(scales[0], scales[1])),
                                   _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(scales[0], scales[1])) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->sums16 + 2 * j);
            for (int h = 0; h < 2; h++) {
                const __m256i products = _mm256_madd_epi16(pairs[h], y);
                sums[c][h] = j == 0 ? products : _mm256_add_epi32(sums[c][h], products);
            }
        }
    }
}

template <int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs,
              bool first, bool from_memory) {
    __m256 totals[N][2];
    for (int c = 0; c < N; c++) {
        for (int h = 0; h < 2; h++) {
            totals[c][h] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(outputs[c] + 8 * h);
        }
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
        }
        __m256i sums[N][2];
        offsets_of<N>(group, with, sums);
        for (int c = 0; c < N; c++) {
            for (int h = 0; h < 2; h++) {
                sums[c][h] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sums[c][h], 5));
            }
        }
        for (int half = 0; half < 2; half++) {
            for (int s = 0; s < 2; s++) {
                prefetch_ahead<N, 4>(group, from_memory, 2 * half + s);
                add_64<N>(group, half, s, with, sums);
            }
        }
        for (int h = 0; h < 2; h++) {
            const __m256 d = halves_to_floats(group.d + 8 * h);
            for (int c = 0; c < N; c++) {
                const __m256 value = _mm256_mul_ps(d, _mm256_cvtepi32_ps(sums[c][h]));
                totals[c][h] = _mm256_fmadd_ps(_mm256_set1_ps(with[c]->scale), value, totals[c][h]);
            }
        }
    }
    for (int c = 0; c < N; c++) {
        _mm256_storeu_ps(outputs[c], totals[c][0]);
        _mm256_storeu_ps(outputs[c] + 8, totals[c][1]);
    }
}

#endif

} // namespace

const Kernel q6_k_kernel = { GGML_TYPE_Q6_K, BLOCK, sizeof(Activations), quantize, quantize_reference, repack,
                             CYLLAMA_PRODUCT(multiply), reference, many_rows(128), nullptr,
                             CYLLAMA_TILED(tiled<unpack, false>) };

} // namespace cyllama

#endif
