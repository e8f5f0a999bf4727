// Q6_K: a value is d * scale * (q - 32), with q of 6 bits, and a scale of 8 bits for 16 columns.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "simd.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// 16 rows of 256 columns; the size is that of 16 blocks of ggml's format.
struct Half { // 128 columns, four parts of 32
    uint8_t high[8][4 * ROWS];   // [four columns]: two bits of each part
    uint8_t low[2][8][4 * ROWS]; // [part % 2][four columns]: the low bits are of part 0 or 1, the high ones of 2 or 3
};

struct Group {
    uint16_t d[ROWS];
    int8_t   scales[16][ROWS];
    Half     halves[2];
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
                    memcpy(group.halves[h].high[t] + 4 * r, block.qh + 32 * h + 4 * t, 4);
                    memcpy(group.halves[h].low[0][t] + 4 * r, block.ql + 64 * h + 4 * t, 4);
                    memcpy(group.halves[h].low[1][t] + 4 * r, block.ql + 64 * h + 32 + 4 * t, 4);
                }
            }
        }
        memcpy(panel + i * sizeof(group), &group, sizeof(group));
    }
}

void reference(const uint8_t * panel, int64_t n_blocks, const Activations * const * rows, int n,
               float * const * outputs) {
    for (int c = 0; c < n; c++) {
        for (int64_t r = 0; r < ROWS; r++) {
            float total = 0;
            for (int64_t i = 0; i < n_blocks; i++) {
                const Group & group = ((const Group *) panel)[i];
                const Activations & with = rows[c][i];
                int32_t sum = 0;
                for (int k = 0; k < BLOCK; k++) {
                    const int j = k / 32, t = k % 32 / 4, at = 4 * r + k % 4;
                    const Half & half = group.halves[j / 4];
                    const int q = (half.low[j % 2][t][at] >> (j % 4 / 2 * 4) & 15) |
                                  (half.high[t][at] >> (j % 4 * 2) & 3) << 4;
                    sum += group.scales[k / 16][r] * (q - 32) * with.values[k];
                }
                total = fmaf(with.scale, half_to_float(group.d[r]) * (float) sum, total);
            }
            outputs[c][r] = total;
        }
    }
}

#ifdef CYLLAMA_VNNI

template <int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const Activations * const * rows, float * const * outputs) {
    __m512 totals[N];
    for (int c = 0; c < N; c++) {
        totals[c] = _mm512_setzero_ps();
    }
    const __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        __m512i sums[N];
        for (int c = 0; c < N; c++) {
            with[c] = rows[c] + i;
            sums[c] = _mm512_setzero_si512();
        }
        // what 32 * scale, the offset of the values, contributes
        for (int j = 0; j < 8; j++) {
            const __m128i scales[2] = { load_16(group.scales[2 * j]), load_16(group.scales[2 * j + 1]) };
            const __m512i pairs = _mm512_cvtepi8_epi16(
                _mm256_set_m128i(_mm_unpackhi_epi8(scales[0], scales[1]), _mm_unpacklo_epi8(scales[0], scales[1])));
            for (int c = 0; c < N; c++) {
                sums[c] = _mm512_dpwssd_epi32(sums[c], pairs, broadcast_16(with[c]->sums16 + 2 * j));
            }
        }
        for (int c = 0; c < N; c++) {
            sums[c] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums[c], 5));
        }
        for (int j = 0; j < 8; j += 4) {
            const Half & half = group.halves[j / 4];
            for (int s = 0; s < 2; s++) {
                __m512i parts[N][4];
                for (int c = 0; c < N; c++) {
                    parts[c][0] = parts[c][1] = parts[c][2] = parts[c][3] = _mm512_setzero_si512();
                }
#pragma GCC unroll 4
                for (int t = 4 * s; t < 4 * s + 4; t++) {
                    const __m512i high = load_64(half.high[t]);
                    const __m512i low[2] = { load_64(half.low[0][t]), load_64(half.low[1][t]) };
                    const __m512i w[4] = {
                        _mm512_or_si512(_mm512_and_si512(low[0], four),
                                        _mm512_and_si512(_mm512_slli_epi16(high, 4), two)),
                        _mm512_or_si512(_mm512_and_si512(low[1], four),
                                        _mm512_and_si512(_mm512_slli_epi16(high, 2), two)),
                        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low[0], 4), four),
                                        _mm512_and_si512(high, two)),
                        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low[1], 4), four),
                                        _mm512_and_si512(_mm512_srli_epi16(high, 2), two)),
                    };
                    prefetch((const uint8_t *) half.high[t] + sizeof(Group));
                    prefetch((const uint8_t *) half.low[0][t] + sizeof(Group));
                    prefetch((const uint8_t *) half.low[1][t] + sizeof(Group));
                    for (int c = 0; c < N; c++) {
                        for (int part = 0; part < 4; part++) {
                            const int8_t * y = with[c]->values + 32 * (j + part) + 4 * t;
                            parts[c][part] = _mm512_dpbusd_epi32(parts[c][part], w[part], broadcast_16(y));
                        }
                    }
                }
                for (int part = 0; part < 4; part++) {
                    const __m512i scale = _mm512_cvtepi8_epi32(load_16(group.scales[2 * (j + part) + s]));
                    for (int c = 0; c < N; c++) {
                        sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(parts[c][part], scale));
                    }
                }
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

#else

// Bytes of 16 rows as pairs of equal 16-bit numbers with signs.
template <int half> inline __m256i pairs_signed(__m128i bytes) {
    const __m256i both  = _mm256_broadcastsi128_si256(bytes);
    const __m256i order = half == 0 ? _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,
                                                       -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7)
                                    : _mm256_setr_epi8(-1, 8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11,
                                                       -1, 12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(both, order), 8);
}

// Six bits of 32 columns with number `part` of four (`j` % 4).
template <int part> inline __m256i value_bits(const uint8_t * low, const uint8_t * high) {
    const __m256i four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);
    const __m256i a = load(low), b = load(high);
    const __m256i upper = part == 0   ? _mm256_slli_epi16(b, 4)
                          : part == 1 ? _mm256_slli_epi16(b, 2)
                          : part == 2 ? b
                                      : _mm256_srli_epi16(b, 2);
    return _mm256_or_si256(_mm256_and_si256(part >= 2 ? _mm256_srli_epi16(a, 4) : a, four),
                           _mm256_and_si256(upper, two));
}

// The two halves of 32 columns have a scale each. Two sums of pairs stay below 2^15: 2 * 2 * 63 * 127 = 32004.
template <int N, int part>
inline void add_32(const Group & group, int j, const Activations * const * with, __m256i (&sums)[N][2]) {
    const Half & half = group.halves[j / 4];
#pragma GCC unroll 2
    for (int s = 0; s < 2; s++) {
        const __m128i scales = _mm_loadu_si128((const __m128i *) group.scales[2 * j + s]);
        const __m256i scale[2] = { pairs_signed<0>(scales), pairs_signed<1>(scales) };
#pragma GCC unroll 2
        for (int t = 4 * s; t < 4 * s + 4; t += 2) {
            if (part < 3) { // 48 lines of the next group
                prefetch((const uint8_t *) (&group + 1) + sizeof(Half) * (j / 4) + 512 * part + 64 * t);
                prefetch((const uint8_t *) (&group + 1) + sizeof(Half) * (j / 4) + 512 * part + 64 * t + 64);
            }
            __m256i products[N][2];
#pragma GCC unroll 2
            for (int u = 0; u < 2; u++) {
                __m256i w[2];
                for (int h = 0; h < 2; h++) {
                    w[h] = value_bits<part>(half.low[part % 2][t + u] + 32 * h, half.high[t + u] + 32 * h);
                }
                for (int c = 0; c < N; c++) {
                    const __m256i y = broadcast(with[c]->values + 32 * j + 4 * (t + u));
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
void multiply(const uint8_t * panel, int64_t n_blocks, const Activations * const * rows, float * const * outputs) {
    __m256 totals[N][2];
    for (int c = 0; c < N; c++) {
        totals[c][0] = totals[c][1] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        for (int c = 0; c < N; c++) {
            with[c] = rows[c] + i;
        }
        __m256i sums[N][2];
        offsets_of<N>(group, with, sums);
        for (int c = 0; c < N; c++) {
            for (int h = 0; h < 2; h++) {
                sums[c][h] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sums[c][h], 5));
            }
        }
        for (int j = 0; j < 8; j += 4) {
            add_32<N, 0>(group, j, with, sums);
            add_32<N, 1>(group, j + 1, with, sums);
            add_32<N, 2>(group, j + 2, with, sums);
            add_32<N, 3>(group, j + 3, with, sums);
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

void product(const uint8_t * panel, int64_t n_blocks, const Activations * const * rows, int n,
             float * const * outputs) {
    switch (n) {
        case 1: multiply<1>(panel, n_blocks, rows, outputs); break;
        case 2: multiply<2>(panel, n_blocks, rows, outputs); break;
        case 3: multiply<3>(panel, n_blocks, rows, outputs); break;
        default: multiply<4>(panel, n_blocks, rows, outputs); break;
    }
}

} // namespace

const Kernel q6_k_kernel = { GGML_TYPE_Q6_K, repack, product, reference };

} // namespace cyllama

#endif
