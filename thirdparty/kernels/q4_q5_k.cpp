// Q4_K and Q5_K: a value is d * scale * q - dmin * minimum, with q of 4 or 5 bits, and scale and minimum of 6 bits for
// 32 columns.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "integer_tiles.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// 16 rows of 256 columns, in eight parts of 32; the size is that of 16 blocks of ggml's format.
struct Scales {
    uint16_t d[ROWS];
    uint16_t dmin[ROWS];
    uint8_t  scales[8][ROWS]; // bits 0 to 5: the scale; 6 and 7: the lowest bits of the minimum
    uint8_t  minima[4][ROWS]; // the upper four bits of two minima
};

// Each format has a Group, and: how many vectors of four columns can be multiplied and added in 16 bits; how many parts
// are multiplied at once with more than four rows (VNNI), by measurement; a value; and four columns `t` of a part of
// eight rows, or (VNNI) of both parts of a pair and of sixteen rows.

struct Q4_K {
    using Block = block_q4_K;
    struct Group : Scales {
        uint8_t values[4][8][4 * ROWS]; // [pair of parts][four columns]: the low bits are of the first part
    };
    static constexpr int ADDED = 8; // 8 * 2 * 15 * 127 < 2^15
    static constexpr int AT_ONCE = 1;

    static void repack_high(const Block &, int64_t, Group &) {}

    static int value(const Group & group, int64_t r, int k) {
        return group.values[k / 64][k % 32 / 4][4 * r + k % 4] >> (k % 64 / 32 * 4) & 15;
    }

    template <bool upper> static __m256i values(const Group & group, int pair, int t, int row) {
        const __m256i both = load(group.values[pair][t] + 4 * row);
        return _mm256_and_si256(upper ? _mm256_srli_epi16(both, 4) : both, _mm256_set1_epi8(15));
    }
#ifdef CYLLAMA_VNNI
    static void values_16(const Group & group, int pair, int t, __m512i (&w)[2]) {
        const __m512i both = in_register(load_64(group.values[pair][t])), low = _mm512_set1_epi8(15);
        w[0] = _mm512_and_si512(both, low);
        w[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
#endif
};

struct Q5_K {
    using Block = block_q5_K;
    struct Group : Scales {
        uint8_t high[8][4 * ROWS]; // [four columns]: bits 0 to 3 are of the first parts of pairs, 4 to 7 of the second
        uint8_t values[4][8][4 * ROWS];
    };
    static constexpr int ADDED = 4; // 4 * 2 * 31 * 127 < 2^15
    static constexpr int AT_ONCE = 2;

    static void repack_high(const Block & block, int64_t r, Group & group) {
        for (int c = 0; c < 32; c++) {
            group.high[c / 4][4 * r + c % 4] = even_bits(block.qh[c]) | even_bits(block.qh[c] >> 1) << 4;
        }
    }

    static unsigned even_bits(unsigned byte) {
        byte &= 0x55;
        byte = (byte | byte >> 1) & 0x33;
        return (byte | byte >> 2) & 0x0f;
    }

    static int value(const Group & group, int64_t r, int k) {
        const int t = k % 32 / 4, at = 4 * r + k % 4, upper = k % 64 / 32 * 4;
        return (group.values[k / 64][t][at] >> upper & 15) | (group.high[t][at] >> (k / 64 + upper) & 1) << 4;
    }

    template <bool upper> static __m256i values(const Group & group, int pair, int t, int row) {
        const __m256i both = load(group.values[pair][t] + 4 * row);
        const __m256i low  = _mm256_and_si256(upper ? _mm256_srli_epi16(both, 4) : both, _mm256_set1_epi8(15));
        const __m256i bits = _mm256_srl_epi16(load(group.high[t] + 4 * row), _mm_cvtsi32_si128(pair));
        return _mm256_or_si256(low, _mm256_and_si256(upper ? bits : _mm256_slli_epi16(bits, 4), _mm256_set1_epi8(16)));
    }
#ifdef CYLLAMA_VNNI
    static void values_16(const Group & group, int pair, int t, __m512i (&w)[2]) {
        const __m512i both = in_register(load_64(group.values[pair][t])), low = _mm512_set1_epi8(15);
        const __m512i bits = _mm512_srl_epi16(load_64(group.high[t]), _mm_cvtsi32_si128(pair));
        const __m512i high = _mm512_set1_epi8(16);
        w[0] = or_and(_mm512_and_si512(both, low), _mm512_slli_epi16(bits, 4), high);
        w[1] = or_and(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), bits, high);
    }
#endif
};

void unpack_scale(const uint8_t * packed, int j, uint8_t & scale, uint8_t & minimum) {
    if (j < 4) {
        scale   = packed[j] & 63;
        minimum = packed[j + 4] & 63;
    } else {
        scale   = (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4);
        minimum = (packed[j + 4] >> 4) | (packed[j] >> 6 << 4);
    }
}

template <typename Format> void repack(const uint8_t * rows, int64_t n_blocks, uint8_t * panel) {
    using Block = typename Format::Block;
    using Group = typename Format::Group;
    static_assert(sizeof(Group) == ROWS * sizeof(Block), "a panel has the size of its rows");
    for (int64_t i = 0; i < n_blocks; i++) {
        Group group;
        memset(&group, 0, sizeof(group));
        for (int64_t r = 0; r < ROWS; r++) {
            Block block;
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
            Format::repack_high(block, r, group);
        }
        memcpy(panel + i * sizeof(group), &group, sizeof(group));
    }
}

template <typename Format>
void reference(const uint8_t * panel, int64_t n_blocks, const void * const * rows, int n, float * const * outputs,
               bool first, bool) {
    for (int c = 0; c < n; c++) {
        for (int64_t r = 0; r < ROWS; r++) {
            float total = first ? 0 : outputs[c][r];
            for (int64_t i = 0; i < n_blocks; i++) {
                const auto & group = ((const typename Format::Group *) panel)[i];
                const Activations & with = ((const Activations *) rows[c])[i];
                int32_t sum = 0, offset = 0;
                for (int j = 0; j < 8; j++) {
                    int32_t part = 0;
                    for (int k = 32 * j; k < 32 * j + 32; k++) {
                        part += Format::value(group, r, k) * with.values[k];
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

// The minima of the parts of a pair, row by row.
inline void minima_of(const Scales & group, int pair, __m128i (&pairs)[2]) {
    const __m128i upper = load_16(group.minima[pair]);
    const __m128i lower[2] = { load_16(group.scales[2 * pair]), load_16(group.scales[2 * pair + 1]) };
    // six bits: four of `upper`, shifted by two, and the two uppermost of `lower`
    const __m128i four = _mm_set1_epi8(0x3c), two = _mm_set1_epi8(3);
    const __m128i minimum[2] = {
        _mm_or_si128(_mm_and_si128(_mm_slli_epi16(upper, 2), four), _mm_and_si128(_mm_srli_epi16(lower[0], 6), two)),
        _mm_or_si128(_mm_and_si128(_mm_srli_epi16(upper, 2), four), _mm_and_si128(_mm_srli_epi16(lower[1], 6), two)),
    };
    pairs[0] = _mm_unpacklo_epi8(minimum[0], minimum[1]);
    pairs[1] = _mm_unpackhi_epi8(minimum[0], minimum[1]);
}

inline __m128i scales_of(const Scales & group, int j) {
    return _mm_and_si128(load_16(group.scales[j]), _mm_set1_epi8(63));
}

#ifdef CYLLAMA_VNNI

inline __m512i minima_16(const Scales & group, int pair) {
    __m128i pairs[2];
    minima_of(group, pair, pairs);
    return _mm512_cvtepu8_epi16(_mm256_set_m128i(pairs[1], pairs[0]));
}

// Adds scale * the products of P parts of a pair.
template <typename Format, int N, int P>
inline void add_parts(const typename Format::Group & group, int j, const Activations * const * with,
                      __m512i (&sums)[N]) {
    __m512i parts[P][N];
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 8
        for (int c = 0; c < N; c++) {
            parts[p][c] = _mm512_setzero_si512();
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        __m512i w[2];
        Format::values_16(group, j / 2, t, w);
        for (int p = 0; p < P; p++) {
#pragma GCC unroll 8
            for (int c = 0; c < N; c++) {
                const __m512i y = broadcast_16(with[c]->values + 32 * (j + p) + 4 * t);
                parts[p][c] = _mm512_dpbusd_epi32(parts[p][c], w[P == 2 ? p : j % 2], y);
            }
        }
    }
    for (int p = 0; p < P; p++) {
        const __m512i scale = _mm512_cvtepu8_epi32(scales_of(group, j + p));
#pragma GCC unroll 8
        for (int c = 0; c < N; c++) {
            sums[c] = _mm512_add_epi32(sums[c], _mm512_mullo_epi32(parts[p][c], scale));
        }
    }
}

template <typename Format, int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs,
              bool first, bool from_memory) {
    __m512 totals[N];
    for (int c = 0; c < N; c++) {
        totals[c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(outputs[c]);
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const auto & group = ((const typename Format::Group *) panel)[i];
        const Activations * with[N];
        __m512i sums[N], offsets[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
            sums[c] = offsets[c] = _mm512_setzero_si512();
        }
        for (int pair = 0; pair < 4; pair++) {
            prefetch_ahead<N, 4>(group, from_memory, pair);
            if constexpr (N <= 4 || Format::AT_ONCE == 2) {
                add_parts<Format, N, 2>(group, 2 * pair, with, sums);
            } else {
                add_parts<Format, N, 1>(group, 2 * pair, with, sums);
                add_parts<Format, N, 1>(group, 2 * pair + 1, with, sums);
            }
            const __m512i minima = minima_16(group, pair);
            for (int c = 0; c < N; c++) {
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

#ifdef CYLLAMA_TILES

template <typename Format> void unpack(const uint8_t * panel, int64_t n_blocks, uint8_t * groups) {
    for (int64_t i = 0; i < n_blocks; i++) {
        const auto & group = ((const typename Format::Group *) panel)[i];
        auto & to = ((TiledGroup *) groups)[i];
        for (int pair = 0; pair < 4; pair++) {
            const TiledGroup::Factors factors[2] = { TiledGroup::Factors(scales_of(group, 2 * pair)),
                                                     TiledGroup::Factors(scales_of(group, 2 * pair + 1)) };
            for (int t = 0; t < 8; t++) {
                __m512i w[2];
                Format::values_16(group, pair, t, w);
                to.put(64 * pair + 4 * t, w[0], factors[0]);
                to.put(64 * pair + 32 + 4 * t, w[1], factors[1]);
            }
            _mm512_store_si512(to.minima[pair], minima_16(group, pair));
        }
        _mm512_store_ps(to.d, _mm512_cvtph_ps(load(group.d)));
        _mm512_store_ps(to.dmin, _mm512_cvtph_ps(load(group.dmin)));
    }
}

#endif

#else

// Adds scale * the products of a part.
template <typename Format, int N, bool upper>
inline void add_32(const typename Format::Group & group, int pair, const Activations * const * with,
                   __m256i (&sums)[N][2]) {
    const int j = 2 * pair + upper;
    const __m128i scales = scales_of(group, j);
    const __m256i scale[2] = { pairs_unsigned<0>(scales), pairs_unsigned<1>(scales) };
    __m256i parts[N][2];
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        const __m256i w[2] = { Format::template values<upper>(group, pair, t, 0),
                               Format::template values<upper>(group, pair, t, 8) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + 32 * j + 4 * t);
            for (int h = 0; h < 2; h++) {
                const __m256i products = _mm256_maddubs_epi16(w[h], y);
                parts[c][h] = in_order(t % Format::ADDED == 0 ? products : _mm256_add_epi16(parts[c][h], products));
            }
        }
        if (t % Format::ADDED == Format::ADDED - 1) {
            for (int c = 0; c < N; c++) {
                for (int h = 0; h < 2; h++) {
                    const __m256i scaled = _mm256_madd_epi16(parts[c][h], scale[h]);
                    sums[c][h] = in_order(_mm256_add_epi32(sums[c][h], scaled));
                }
            }
        }
    }
}

template <int N>
inline void offsets_of(const Scales & group, const Activations * const * with, __m256i (&sums)[N][2]) {
    for (int pair = 0; pair < 4; pair++) {
        __m128i minima[2];
        minima_of(group, pair, minima);
        for (int h = 0; h < 2; h++) {
            const __m256i minimum = _mm256_cvtepu8_epi16(minima[h]);
            for (int c = 0; c < N; c++) {
                const __m256i products = _mm256_madd_epi16(minimum, broadcast(with[c]->sums32 + 2 * pair));
                sums[c][h] = pair == 0 ? products : _mm256_add_epi32(sums[c][h], products);
            }
        }
    }
}

template <typename Format, int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs,
              bool first, bool from_memory) {
    __m256 totals[N][2];
    for (int c = 0; c < N; c++) {
        for (int h = 0; h < 2; h++) {
            totals[c][h] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(outputs[c] + 8 * h);
        }
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const auto & group = ((const typename Format::Group *) panel)[i];
        const Activations * with[N];
        __m256i sums[N][2], offsets[N][2];
        for (int c = 0; c < N; c++) {
            with[c] = (const Activations *) rows[c] + i;
            sums[c][0] = sums[c][1] = _mm256_setzero_si256();
        }
        for (int pair = 0; pair < 4; pair++) {
            prefetch_ahead<N, 4>(group, from_memory, pair);
            add_32<Format, N, false>(group, pair, with, sums);
            add_32<Format, N, true>(group, pair, with, sums);
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

template <int N> constexpr auto multiply_q4_k = multiply<Q4_K, N>;
template <int N> constexpr auto multiply_q5_k = multiply<Q5_K, N>;

} // namespace

const Kernel q4_k_kernel = { GGML_TYPE_Q4_K, BLOCK, sizeof(Activations), quantize, quantize_reference, repack<Q4_K>,
                             CYLLAMA_PRODUCT(multiply_q4_k), reference<Q4_K>, 128, nullptr,
                             CYLLAMA_TILED(tiled<unpack<Q4_K>, true>) };
const Kernel q5_k_kernel = { GGML_TYPE_Q5_K, BLOCK, sizeof(Activations), quantize, quantize_reference, repack<Q5_K>,
                             CYLLAMA_PRODUCT(multiply_q5_k), reference<Q5_K>, many_rows(512), nullptr,
                             CYLLAMA_TILED(tiled<unpack<Q5_K>, true>) };

} // namespace cyllama

#endif
