// Types of weights with blocks of 32 columns: a value is d * (q - zero), with q of 4, 5 or 8 bits.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "integer_tiles.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

namespace cyllama {
namespace {

// Each format has 16 rows of 32 columns in a Group, and: the zero; how many vectors of four columns can be multiplied
// and added in 16 bits; a value; and four columns `t` of eight rows, or (VNNI) columns `t` and `t + 4` of sixteen.

struct Q4_0 {
    using Block = block_q4_0;
    struct Group {
        uint16_t d[ROWS];
        uint8_t  values[4][4 * ROWS]; // the low bits are of the first 16 columns
    };
    static constexpr int ZERO = 8, ADDED = 8; // 8 * 2 * 15 * 127 < 2^15

    static void repack(const Block & block, int64_t r, Group & group) {
        for (int t = 0; t < 4; t++) {
            memcpy(group.values[t] + 4 * r, block.qs + 4 * t, 4);
        }
    }

    static int value(const Group & group, int64_t r, int k) {
        return group.values[k % 16 / 4][4 * r + k % 4] >> (k / 16 * 4) & 15;
    }

    static __m256i values(const Group & group, int t, int row) {
        const __m256i both = load(group.values[t % 4] + 4 * row);
        return _mm256_and_si256(t < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
    }
#ifdef CYLLAMA_VNNI
    static void values_16(const Group & group, int t, __m512i (&w)[2]) {
        const __m512i both = in_register(load_64(group.values[t])), low = _mm512_set1_epi8(15);
        w[0] = _mm512_and_si512(both, low);
        w[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
#endif
};

struct Q5_0 {
    using Block = block_q5_0;
    struct Group {
        uint16_t d[ROWS];
        uint8_t  high[4 * ROWS]; // bit t: of columns 4 t to 4 t + 3
        uint8_t  values[4][4 * ROWS];
    };
    static constexpr int ZERO = 16, ADDED = 4; // 4 * 2 * 31 * 127 < 2^15

    static void repack(const Block & block, int64_t r, Group & group) {
        uint32_t high;
        memcpy(&high, block.qh, sizeof(high));
        for (int k = 0; k < 4; k++) { // every fourth bit
            uint32_t bits = high >> k & 0x11111111;
            bits = (bits | bits >> 3) & 0x03030303;
            bits = (bits | bits >> 6) & 0x000f000f;
            group.high[4 * r + k] = (bits | bits >> 12) & 0xff;
        }
        for (int t = 0; t < 4; t++) {
            memcpy(group.values[t] + 4 * r, block.qs + 4 * t, 4);
        }
    }

    static int value(const Group & group, int64_t r, int k) {
        return (group.values[k % 16 / 4][4 * r + k % 4] >> (k / 16 * 4) & 15) |
               (group.high[4 * r + k % 4] >> k / 4 & 1) << 4;
    }

    static __m256i values(const Group & group, int t, int row) {
        const __m256i both = load(group.values[t % 4] + 4 * row), high = load(group.high + 4 * row);
        const __m256i low = _mm256_and_si256(t < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
        const __m256i bit = t < 4 ? _mm256_slli_epi16(high, 4 - t) : _mm256_srli_epi16(high, t - 4);
        return _mm256_or_si256(low, _mm256_and_si256(bit, _mm256_set1_epi8(16)));
    }
#ifdef CYLLAMA_VNNI
    static void values_16(const Group & group, int t, __m512i (&w)[2]) {
        const __m512i both = in_register(load_64(group.values[t])), high = in_register(load_64(group.high));
        const __m512i low = _mm512_set1_epi8(15), bit = _mm512_set1_epi8(16);
        w[0] = or_and(_mm512_and_si512(both, low), _mm512_slli_epi16(high, 4 - t), bit);
        w[1] = or_and(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), _mm512_srli_epi16(high, t), bit);
    }
#endif
};

struct Q8_0 {
    using Block = block_q8_0;
    struct Group {
        uint16_t d[ROWS];
        uint8_t  values[8][4 * ROWS]; // plus 128
    };
    static constexpr int ZERO = 128, ADDED = 0; // a sum of two pairs needs more than 16 bits

    static void repack(const Block & block, int64_t r, Group & group) {
        for (int t = 0; t < 8; t++) {
            uint32_t four;
            memcpy(&four, block.qs + 4 * t, sizeof(four));
            four ^= 0x80808080;
            memcpy(group.values[t] + 4 * r, &four, sizeof(four));
        }
    }

    static int value(const Group & group, int64_t r, int k) { return group.values[k / 4][4 * r + k % 4]; }

    static __m256i values(const Group & group, int t, int row) { return load(group.values[t] + 4 * row); }
#ifdef CYLLAMA_VNNI
    static void values_16(const Group & group, int t, __m512i (&w)[2]) {
        w[0] = load_64(group.values[t]);
        w[1] = load_64(group.values[t + 4]);
    }
#endif
};

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
            group.d[r] = block.d;
            Format::repack(block, r, group);
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
                const SmallActivations & with = ((const SmallActivations *) rows[c])[i];
                int32_t sum = 0;
                for (int k = 0; k < SMALL_BLOCK; k++) {
                    sum += (Format::value(group, r, k) - Format::ZERO) * with.values[k];
                }
                total = fmaf(half_to_float(group.d[r]) * with.scale, (float) sum, total);
            }
            outputs[c][r] = total;
        }
    }
}

#ifdef CYLLAMA_VNNI

template <typename Format, int N>
void multiply(const uint8_t * panel, int64_t n_blocks, const void * const * rows, float * const * outputs,
              bool first, bool from_memory) {
    __m512 totals[N];
    for (int c = 0; c < N; c++) {
        totals[c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(outputs[c]);
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        const auto & group = ((const typename Format::Group *) panel)[i];
        prefetch_ahead<N>(group, from_memory);
        const SmallActivations * with[N];
        __m512i sums[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const SmallActivations *) rows[c] + i;
            sums[c] = _mm512_set1_epi32(-Format::ZERO * with[c]->sum);
        }
#pragma GCC unroll 4
        for (int t = 0; t < 4; t++) {
            __m512i w[2];
            Format::values_16(group, t, w);
#pragma GCC unroll 8
            for (int c = 0; c < N; c++) {
                sums[c] = _mm512_dpbusd_epi32(sums[c], w[0], broadcast_16(with[c]->values + 4 * t));
                sums[c] = _mm512_dpbusd_epi32(sums[c], w[1], broadcast_16(with[c]->values + 4 * t + 16));
            }
        }
        const __m512 d = _mm512_cvtph_ps(load(group.d));
        for (int c = 0; c < N; c++) {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(with[c]->scale));
            totals[c] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sums[c]), totals[c]);
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
        auto & to = ((TiledSmallGroup *) groups)[i];
        const __m512i zero = _mm512_set1_epi8((char) Format::ZERO);
#pragma GCC unroll 4
        for (int t = 0; t < 4; t++) {
            __m512i w[2];
            Format::values_16(group, t, w);
            _mm512_store_si512(to.values[t], _mm512_sub_epi8(w[0], zero));
            _mm512_store_si512(to.values[t + 4], _mm512_sub_epi8(w[1], zero));
        }
        _mm512_store_ps(to.d, _mm512_cvtph_ps(load(group.d)));
    }
}

#endif

#else

// Sums of products in 32 bits, for values with signs: |q| times the activation with the sign of q.
template <int N>
inline void signed_sums_of(const Q8_0::Group & group, const SmallActivations * const * with, __m256i (&sums)[N][2]) {
    const __m256i ones = _mm256_set1_epi16(1), sign = _mm256_set1_epi8(-128);
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        const __m256i w[2] = { _mm256_xor_si256(Q8_0::values(group, t, 0), sign),
                               _mm256_xor_si256(Q8_0::values(group, t, 8), sign) };
        const __m256i magnitude[2] = { _mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1]) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + 4 * t);
            for (int h = 0; h < 2; h++) {
                const __m256i pairs = _mm256_maddubs_epi16(magnitude[h], _mm256_sign_epi8(y, w[h]));
                const __m256i wide = _mm256_madd_epi16(pairs, ones);
                sums[c][h] = in_order(t == 0 ? wide : _mm256_add_epi32(sums[c][h], wide));
            }
        }
    }
}

// Sums of q * activation in 32 bits; the zero is subtracted.
template <typename Format, int N>
inline void sums_of(const typename Format::Group & group, const SmallActivations * const * with,
                    __m256i (&sums)[N][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i parts[N][2];
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) {
        const __m256i w[2] = { Format::values(group, t, 0), Format::values(group, t, 8) };
        for (int c = 0; c < N; c++) {
            const __m256i y = broadcast(with[c]->values + 4 * t);
            for (int h = 0; h < 2; h++) {
                const __m256i products = _mm256_maddubs_epi16(w[h], y);
                parts[c][h] = in_order(t % Format::ADDED == 0 ? products : _mm256_add_epi16(parts[c][h], products));
            }
        }
        if (t % Format::ADDED == Format::ADDED - 1) {
            for (int c = 0; c < N; c++) {
                for (int h = 0; h < 2; h++) {
                    const __m256i wide = _mm256_madd_epi16(parts[c][h], ones);
                    sums[c][h] = in_order(t < Format::ADDED ? wide : _mm256_add_epi32(sums[c][h], wide));
                }
            }
        }
    }
    for (int c = 0; c < N; c++) {
        const __m256i offset = _mm256_set1_epi32(Format::ZERO * with[c]->sum);
        for (int h = 0; h < 2; h++) {
            sums[c][h] = _mm256_sub_epi32(sums[c][h], offset);
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
        prefetch_ahead<N>(group, from_memory);
        const SmallActivations * with[N];
        for (int c = 0; c < N; c++) {
            with[c] = (const SmallActivations *) rows[c] + i;
        }
        __m256i sums[N][2];
        if constexpr (Format::ADDED == 0) {
            signed_sums_of<N>(group, with, sums);
        } else {
            sums_of<Format, N>(group, with, sums);
        }
        for (int h = 0; h < 2; h++) {
            const __m256 d = halves_to_floats(group.d + 8 * h);
            for (int c = 0; c < N; c++) {
                const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(with[c]->scale));
                totals[c][h] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums[c][h]), totals[c][h]);
            }
        }
    }
    for (int c = 0; c < N; c++) {
        _mm256_storeu_ps(outputs[c], totals[c][0]);
        _mm256_storeu_ps(outputs[c] + 8, totals[c][1]);
    }
}

#endif

template <typename Format> void row(const uint8_t * panel, int64_t n_blocks, int64_t r, float * to) {
    for (int64_t i = 0; i < n_blocks; i++) {
        const auto & group = ((const typename Format::Group *) panel)[i];
        const float d = half_to_float(group.d[r]);
        for (int k = 0; k < SMALL_BLOCK; k++) {
            to[i * SMALL_BLOCK + k] = (Format::value(group, r, k) - Format::ZERO) * d;
        }
    }
}

template <typename Format> constexpr Kernel kernel(ggml_type type, Product product, int64_t many_rows) {
    return { type,           SMALL_BLOCK, sizeof(SmallActivations), quantize_small, quantize_small_reference,
             repack<Format>, product,     reference<Format>,        many_rows,      row<Format>,
             CYLLAMA_TILED(tiled_small<unpack<Format>>) };
}

template <int N> constexpr auto multiply_q4_0 = multiply<Q4_0, N>;
template <int N> constexpr auto multiply_q5_0 = multiply<Q5_0, N>;
template <int N> constexpr auto multiply_q8_0 = multiply<Q8_0, N>;

} // namespace

const Kernel q4_0_kernel = kernel<Q4_0>(GGML_TYPE_Q4_0, CYLLAMA_PRODUCT(multiply_q4_0), 64);
const Kernel q5_0_kernel = kernel<Q5_0>(GGML_TYPE_Q5_0, CYLLAMA_PRODUCT(multiply_q5_0), 128);
const Kernel q8_0_kernel = kernel<Q8_0>(GGML_TYPE_Q8_0, CYLLAMA_PRODUCT(multiply_q8_0), 64);

} // namespace cyllama

#endif
