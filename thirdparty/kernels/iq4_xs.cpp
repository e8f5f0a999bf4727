// IQ4_XS: a value is d * (scale - 32) * v, with v of a table of 16 values, and a scale of 6 bits for 32 columns.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "integer_tiles.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// kvalues_iq4nl of ggml's format.
constexpr int8_t TABLE[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

// 16 rows of 256 columns, in eight parts of 32; the size is that of 16 blocks of ggml's format.
struct Group {
    uint16_t d[ROWS];
    uint8_t  low[4][ROWS];  // [pair of parts]: the lower four bits of two scales
    uint8_t  high[2][ROWS]; // [pair / 2]: the upper two bits of four scales
    uint8_t  values[8][4][4 * ROWS]; // [part][four columns]: the low bits are of the first 16 columns
};
static_assert(sizeof(Group) == ROWS * sizeof(block_iq4_xs), "a panel has the size of its rows");

void repack(const uint8_t * rows, int64_t n_blocks, uint8_t * panel) {
    for (int64_t i = 0; i < n_blocks; i++) {
        Group group;
        memset(&group, 0, sizeof(group));
        for (int64_t r = 0; r < ROWS; r++) {
            block_iq4_xs block;
            memcpy(&block, rows + (r * n_blocks + i) * sizeof(block), sizeof(block));
            group.d[r] = block.d;
            for (int j = 0; j < 4; j++) {
                group.low[j][r] = block.scales_l[j];
                group.high[j / 2][r] |= (block.scales_h >> 4 * j & 15) << j % 2 * 4;
            }
            for (int j = 0; j < 8; j++) {
                for (int t = 0; t < 4; t++) {
                    memcpy(group.values[j][t] + 4 * r, block.qs + 16 * j + 4 * t, 4);
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
                    const int j = k / 32, upper = k % 32 / 16 * 4;
                    const int low = group.low[j / 2][r] >> j % 2 * 4 & 15, high = group.high[j / 4][r] >> j % 4 * 2 & 3;
                    const int value = TABLE[group.values[j][k % 16 / 4][4 * r + k % 4] >> upper & 15];
                    sum += ((low | high << 4) - 32) * value * with.values[k];
                }
                total = fmaf(with.scale, half_to_float(group.d[r]) * (float) sum, total);
            }
            outputs[c][r] = total;
        }
    }
}

// The scales of the parts of a pair, row by row.
inline void scales_of(const Group & group, int pair, __m128i (&scales)[2]) {
    const __m128i low = load_16(group.low[pair]), four = _mm_set1_epi8(15), two = _mm_set1_epi8(0x30);
    const __m128i high = _mm_srl_epi16(load_16(group.high[pair / 2]), _mm_cvtsi32_si128(pair % 2 * 4));
    scales[0] = _mm_or_si128(_mm_and_si128(low, four), _mm_and_si128(_mm_slli_epi16(high, 4), two));
    scales[1] = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), four), _mm_and_si128(_mm_slli_epi16(high, 2), two));
    for (int p = 0; p < 2; p++) {
        scales[p] = _mm_sub_epi8(scales[p], _mm_set1_epi8(32));
    }
}

#ifdef CYLLAMA_VNNI

// Adds scale * (value + 128) * activation of a part.
template <int N>
inline void add_32(const Group & group, int j, __m128i scales, const Activations * const * with, __m512i (&sums)[N]) {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i table = _mm512_xor_si512(_mm512_broadcast_i32x4(load_16(TABLE)), _mm512_set1_epi8(-128));
    __m512i parts[N];
#pragma GCC unroll 8
    for (int c = 0; c < N; c++) {
        parts[c] = _mm512_setzero_si512();
    }
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) {
        const __m512i both = in_register(load_64(group.values[j][t]));
        const __m512i w[2] = { _mm512_shuffle_epi8(table, _mm512_and_si512(both, low)),
                               _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(both, 4), low)) };
#pragma GCC unroll 8
        for (int c = 0; c < N; c++) {
            const int8_t * y = with[c]->values + 32 * j + 4 * t;
            parts[c] = _mm512_dpbusd_epi32(parts[c], w[0], broadcast_16(y));
            parts[c] = _mm512_dpbusd_epi32(parts[c], w[1], broadcast_16(y + 16));
        }
    }
    const __m512i scale = _mm512_cvtepi8_epi32(scales);
#pragma GCC unroll 8
    for (int c = 0; c < N; c++) {
        sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(parts[c], scale));
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
        __m512i sums[N], offsets[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
            sums[c] = offsets[c] = _mm512_setzero_si512();
        }
        for (int pair = 0; pair < 4; pair++) {
            prefetch_ahead<N, 4>(group, from_memory, pair);
            __m128i scales[2];
            scales_of(group, pair, scales);
            add_32<N>(group, 2 * pair, scales[0], with, sums);
            add_32<N>(group, 2 * pair + 1, scales[1], with, sums);
            const __m512i pairs = _mm512_cvtepi8_epi16(
                _mm256_set_m128i(_mm_unpackhi_epi8(scales[0], scales[1]), _mm_unpacklo_epi8(scales[0], scales[1])));
            for (int c = 0; c < N; c++) {
                offsets[c] = _mm512_dpwssd_epi32(offsets[c], pairs, broadcast_16(with[c]->sums32 + 2 * pair));
            }
        }
        const __m512 d = _mm512_cvtph_ps(load(group.d));
        for (int c = 0; c < N; c++) {
            const __m512i sum = _mm512_sub_epi32(sums[c], _mm512_slli_epi32(offsets[c], 7));
            const __m512 value = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sum));
            totals[c] = _mm512_fmadd_ps(_mm512_set1_ps(with[c]->scale), value, totals[c]);
        }
    }
    for (int c = 0; c < N; c++) {
        _mm512_storeu_ps(outputs[c], totals[c]);
    }
}

#ifdef CYLLAMA_TILES

void unpack(const uint8_t * panel, int64_t n_blocks, uint8_t * groups) {
    const __m512i table = _mm512_broadcast_i32x4(load_16(TABLE)), low = _mm512_set1_epi8(15);
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        auto & to = ((TiledGroup *) groups)[i];
        for (int j = 0; j < 8; j++) {
            __m128i scales[2];
            scales_of(group, j / 2, scales);
            const TiledGroup::Factors factors(scales[j % 2]);
            for (int t = 0; t < 4; t++) {
                const __m512i both = load_64(group.values[j][t]);
                const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
                to.put(32 * j + 4 * t, _mm512_shuffle_epi8(table, _mm512_and_si512(both, low)), factors);
                to.put(32 * j + 16 + 4 * t, _mm512_shuffle_epi8(table, upper), factors);
            }
        }
        _mm512_store_ps(to.d, _mm512_cvtph_ps(load(group.d)));
    }
}

#endif

#else

// Adds scale * value * activation of a part: |value| times the activation with the sign of the value. A sum of two
// pairs needs more than 16 bits.
template <int N>
inline void add_32(const Group & group, int j, __m128i scales, const Activations * const * with,
                   __m256i (&sums)[N][2]) {
    const __m256i table = _mm256_broadcastsi128_si256(load_16(TABLE)), low = _mm256_set1_epi8(15);
    const __m256i scale[2] = { pairs_signed<0>(scales), pairs_signed<1>(scales) };
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        __m256i w[2], magnitude[2];
        for (int h = 0; h < 2; h++) {
            const __m256i both = load(group.values[j][t % 4] + 32 * h);
            w[h] = _mm256_shuffle_epi8(table, _mm256_and_si256(t < 4 ? both : _mm256_srli_epi16(both, 4), low));
            magnitude[h] = _mm256_abs_epi8(w[h]);
        }
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + 32 * j + 4 * t);
            for (int h = 0; h < 2; h++) {
                const __m256i pairs = _mm256_maddubs_epi16(magnitude[h], _mm256_sign_epi8(y, w[h]));
                sums[c][h] = in_order(_mm256_add_epi32(sums[c][h], _mm256_madd_epi16(pairs, scale[h])));
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
        __m256i sums[N][2];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
            sums[c][0] = sums[c][1] = _mm256_setzero_si256();
        }
        for (int pair = 0; pair < 4; pair++) {
            prefetch_ahead<N, 4>(group, from_memory, pair);
            __m128i scales[2];
            scales_of(group, pair, scales);
            add_32<N>(group, 2 * pair, scales[0], with, sums);
            add_32<N>(group, 2 * pair + 1, scales[1], with, sums);
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

const Kernel iq4_xs_kernel = { GGML_TYPE_IQ4_XS, BLOCK, sizeof(Activations), quantize, quantize_reference, repack,
                               CYLLAMA_PRODUCT(multiply), reference, many_rows(128), nullptr,
                               CYLLAMA_TILED(tiled<unpack, false>) };

} // namespace cyllama

#endif
