// Q4_K: a value is d * scale * q - dmin * minimum, with q of 4 bits, and scale and minimum of 6 bits for 32 columns.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "simd.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// 16 rows of 256 columns; the size is that of 16 blocks of ggml's format.
struct Group {
    uint16_t d[ROWS];
    uint16_t dmin[ROWS];
    uint8_t  scales[8][ROWS];      // bits 0 to 5: the scale; 6 and 7: the lowest bits of the minimum
    uint8_t  minima[4][ROWS];      // the upper four bits of two minima
    uint8_t  values[4][8][4 * ROWS]; // [pair of 32 columns][four columns]: the low bits are of the first 32 columns
};
static_assert(sizeof(Group) == ROWS * sizeof(block_q4_K), "a panel has the size of its rows");

void unpack_scale(const uint8_t * packed, int j, uint8_t & scale, uint8_t & minimum) {
    if (j < 4) {
        scale   = packed[j] & 63;
        minimum = packed[j + 4] & 63;
    } else {
        scale   = (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4);
        minimum = (packed[j + 4] >> 4) | (packed[j] >> 6 << 4);
    }
}

void repack(const uint8_t * rows, int64_t n_blocks, uint8_t * panel) {
    for (int64_t i = 0; i < n_blocks; i++) {
        Group group;
        memset(&group, 0, sizeof(group));
        for (int64_t r = 0; r < ROWS; r++) {
            block_q4_K block;
            memcpy(&block, rows + (r * n_blocks + i) * sizeof(block), sizeof(block));
            group.d[r]    = block.d;
            group.dmin[r] = block.dmin;
            for (int j = 0; j < 8; j++) {
                uint8_t scale, minimum;
                unpack_scale(block.scales, j, scale, minimum);
                group.scales[j][r] = scale | (minimum & 3) << 6;
                group.minima[j / 2][r] |= minimum >> 2 << (j % 2 * 4);
            }
            for (int j = 0; j < 4; j++) {
                for (int t = 0; t < 8; t++) {
                    memcpy(group.values[j][t] + 4 * r, block.qs + 32 * j + 4 * t, 4);
                }
            }
        }
        memcpy(panel + i * sizeof(group), &group, sizeof(group));
    }
}

void reference(const uint8_t * panel, int64_t n_blocks, const void * const * rows, int n, float * const * outputs) {
    for (int c = 0; c < n; c++) {
        for (int64_t r = 0; r < ROWS; r++) {
            float total = 0;
            for (int64_t i = 0; i < n_blocks; i++) {
                const Group & group = ((const Group *) panel)[i];
                const Activations & with = ((const Activations *) rows[c])[i];
                int32_t sum = 0, offset = 0;
                for (int j = 0; j < 8; j++) {
                    int32_t part = 0;
                    for (int k = 0; k < 32; k++) {
                        const int q = group.values[j / 2][k / 4][4 * r + k % 4] >> (j % 2 * 4) & 15;
                        part += q * with.values[32 * j + k];
                    }
                    const int minimum = (group.minima[j / 2][r] >> (j % 2 * 4) & 15) << 2 | group.scales[j][r] >> 6;
                    sum += (group.scales[j][r] & 63) * part;
                    offset += minimum * with.sums32[j];
                }
                float value = half_to_float(group.d[r]) * (float) sum;
                value = fmaf(-half_to_float(group.dmin[r]), (float) offset, value);
                total = fmaf(with.scale, value, total);
            }
            outputs[c][r] = total;
        }
    }
}

#ifdef CYLLAMA_VNNI

// Sums of 64 columns: the low and the high bits of four vectors of bytes.
template <int N>
inline void multiply_64(const Group & group, int pair, const Activations * const * with, __m512i (&sums)[N][2]) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int c = 0; c < N; c++) {
        sums[c][0] = sums[c][1] = _mm512_setzero_si512();
    }
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        const __m512i both = load_64(group.values[pair][t]);
        const __m512i w[2] = { _mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16(both, 4), low) };
        for (int c = 0; c < N; c++) {
            const int8_t * y = with[c]->values + 64 * pair + 4 * t;
            sums[c][0] = _mm512_dpbusd_epi32(sums[c][0], w[0], broadcast_16(y));
            sums[c][1] = _mm512_dpbusd_epi32(sums[c][1], w[1], broadcast_16(y + 32));
        }
    }
}

template <int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs) {
    __m512 totals[N];
    for (int c = 0; c < N; c++) {
        totals[c] = _mm512_setzero_ps();
    }
    const __m128i six = _mm_set1_epi8(63), four = _mm_set1_epi8(0x3c), two = _mm_set1_epi8(3);
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        __m512i sums[N], offsets[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
            sums[c] = offsets[c] = _mm512_setzero_si512();
        }
        for (int pair = 0; pair < 4; pair++) {
            __m512i parts[N][2];
            multiply_64<N>(group, pair, with, parts);
            const __m128i lower[2] = { load_16(group.scales[2 * pair]), load_16(group.scales[2 * pair + 1]) };
            const __m128i upper = load_16(group.minima[pair]);
            const __m512i scale[2] = { _mm512_cvtepu8_epi32(_mm_and_si128(lower[0], six)),
                                       _mm512_cvtepu8_epi32(_mm_and_si128(lower[1], six)) };
            const __m128i minimum[2] = {
                _mm_or_si128(_mm_and_si128(_mm_slli_epi16(upper, 2), four),
                             _mm_and_si128(_mm_srli_epi16(lower[0], 6), two)),
                _mm_or_si128(_mm_and_si128(_mm_srli_epi16(upper, 2), four),
                             _mm_and_si128(_mm_srli_epi16(lower[1], 6), two)),
            };
            const __m256i pairs = _mm256_set_m128i(_mm_unpackhi_epi8(minimum[0], minimum[1]),
                                                   _mm_unpacklo_epi8(minimum[0], minimum[1]));
            const __m512i minima = _mm512_cvtepu8_epi16(pairs);
            for (int c = 0; c < N; c++) {
                sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(parts[c][0], scale[0]));
                sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(parts[c][1], scale[1]));
                offsets[c] = _mm512_dpwssd_epi32(offsets[c], minima, broadcast_16(with[c]->sums32 + 2 * pair));
            }
        }
        const __m512 d = _mm512_cvtph_ps(load(group.d)), dmin = _mm512_cvtph_ps(load(group.dmin));
        for (int c = 0; c < N; c++) {
            __m512 value = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sums[c]));
            value = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(offsets[c]), value);
            totals[c] = _mm512_fmadd_ps(_mm512_set1_ps(with[c]->scale), value, totals[c]);
        }
    }
    for (int c = 0; c < N; c++) {
        _mm512_storeu_ps(outputs[c], totals[c]);
    }
}

#else

// Sums of 32 products q * activation stay below 2^15 in each 16-bit lane: 8 * 2 * 15 * 127 = 30480.
template <int N, bool upper>
inline void multiply_32(const uint8_t (*values)[4 * ROWS], const Activations * const * with, int at,
                        __m256i (&sums)[N][2]) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        __m256i w[2];
        for (int h = 0; h < 2; h++) {
            w[h] = load(values[t] + 32 * h);
            w[h] = _mm256_and_si256(upper ? _mm256_srli_epi16(w[h], 4) : w[h], low);
        }
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + at + 4 * t);
            for (int h = 0; h < 2; h++) {
                const __m256i products = _mm256_maddubs_epi16(w[h], y);
                sums[c][h] = in_order(t == 0 ? products : _mm256_add_epi16(sums[c][h], products));
            }
        }
    }
}

template <int N, bool upper>
inline void add_32(const Group & group, int j, const Activations * const * with, __m256i (&sums)[N][2]) {
    __m256i parts[N][2];
    multiply_32<N, upper>(group.values[j / 2], with, 32 * j, parts);
    const __m128i scales = _mm_and_si128(_mm_loadu_si128((const __m128i *) group.scales[j]), _mm_set1_epi8(63));
    const __m256i scale[2] = { pairs_unsigned<0>(scales), pairs_unsigned<1>(scales) };
    for (int c = 0; c < N; c++) {
        for (int h = 0; h < 2; h++) {
            const __m256i scaled = _mm256_madd_epi16(parts[c][h], scale[h]);
            sums[c][h] = in_order(j == 0 ? scaled : _mm256_add_epi32(sums[c][h], scaled));
        }
    }
}

template <int N>
inline void offsets_of(const Group & group, const Activations * const * with, __m256i (&sums)[N][2]) {
    for (int j = 0; j < 4; j++) {
        const __m128i upper = _mm_loadu_si128((const __m128i *) group.minima[j]);
        const __m128i lower[2] = { _mm_loadu_si128((const __m128i *) group.scales[2 * j]),
                                   _mm_loadu_si128((const __m128i *) group.scales[2 * j + 1]) };
        // six bits: four of `upper`, shifted by two, and the two uppermost of `lower`
        const __m128i four = _mm_set1_epi8(0x3c), two = _mm_set1_epi8(3);
        const __m128i minimum[2] = {
            _mm_or_si128(_mm_and_si128(_mm_slli_epi16(upper, 2), four),
                         _mm_and_si128(_mm_srli_epi16(lower[0], 6), two)),
            _mm_or_si128(_mm_and_si128(_mm_srli_epi16(upper, 2), four),
                         _mm_and_si128(_mm_srli_epi16(lower[1], 6), two)),
        };
        const __m256i pairs[2] = { _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(minimum[0], minimum[1])),
                                   _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(minimum[0], minimum[1])) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->sums32 + 2 * j);
            for (int h = 0; h < 2; h++) {
                const __m256i products = _mm256_madd_epi16(pairs[h], y);
                sums[c][h] = j == 0 ? products : _mm256_add_epi32(sums[c][h], products);
            }
        }
    }
}

template <int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs) {
    __m256 totals[N][2];
    for (int c = 0; c < N; c++) {
        totals[c][0] = totals[c][1] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const Group & group = ((const Group *) panel)[i];
        const Activations * with[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
        }
        __m256i sums[N][2], offsets[N][2];
        for (int j = 0; j < 8; j += 2) {
            add_32<N, false>(group, j, with, sums);
            add_32<N, true>(group, j + 1, with, sums);
        }
        offsets_of<N>(group, with, offsets);
        for (int h = 0; h < 2; h++) {
            const __m256 d = halves_to_floats(group.d + 8 * h), dmin = halves_to_floats(group.dmin + 8 * h);
            for (int c = 0; c < N; c++) {
                __m256 value = _mm256_mul_ps(d, _mm256_cvtepi32_ps(sums[c][h]));
                value = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(offsets[c][h]), value);
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

const Kernel q4_k_kernel = { GGML_TYPE_Q4_K, BLOCK, sizeof(Activations), quantize, repack,
                             CYLLAMA_PRODUCT(multiply), reference };

} // namespace cyllama

#endif
