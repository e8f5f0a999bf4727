// What the kernels share: vectors of 16 rows as two halves of 8, and conversions.
#pragma once

#include "kernels.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace cyllama {

// The product that calls multiply<n>, for n rows.
#define CYLLAMA_PRODUCT(multiply)                                                                                      \
    [](const uint8_t * panel, int64_t n_blocks, const void * const * rows, int n, float * const * outputs,             \
       bool first, bool from_memory) {                                                                                 \
        switch (n) {                                                                                                   \
            case 1: multiply<1>(panel, n_blocks, rows, outputs, first, from_memory); break;                            \
            case 2: multiply<2>(panel, n_blocks, rows, outputs, first, from_memory); break;                            \
            case 4: multiply<std::min(BATCH, 4)>(panel, n_blocks, rows, outputs, first, from_memory); break;           \
            case 6: multiply<std::min(BATCH, 6)>(panel, n_blocks, rows, outputs, first, from_memory); break;           \
            default: multiply<BATCH>(panel, n_blocks, rows, outputs, first, from_memory); break;                       \
        }                                                                                                              \
    }

inline float half_to_float(uint16_t value) { return _cvtsh_ss(value); }

inline __m256 halves_to_floats(const uint16_t * values) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) values));
}

inline __m256i load(const void * from) { return _mm256_loadu_si256((const __m256i *) from); }

inline __m128i load_16(const void * from) { return _mm_loadu_si128((const __m128i *) from); }

inline void prefetch_for_writing(void * to) {
#if defined(__GNUC__)
    __builtin_prefetch(to, 1);
#endif
}

// With few rows of activations, a product waits for weights from memory, and the processor's own prediction stops at
// the end of each page. Reads part `i` of the `n` parts of a group that is a little further into the first cache, and
// of one that is further still into the second. The distances are those that were fastest of several. Products of BATCH
// rows mostly have their weights in a cache.
template <int N, int n = 1, typename Group>
inline void prefetch_ahead(const Group & group, bool from_memory, int i = 0) {
    constexpr size_t FIRST = 1024, SECOND = 3072, SIZE = (sizeof(Group) + n - 1) / n;
    if (N == BATCH && !from_memory) {
        return;
    }
#pragma GCC unroll 16
    for (size_t at = 0; at < SIZE; at += 64) {
        const char * part = (const char *) &group + i * SIZE + at;
        _mm_prefetch(part + FIRST, _MM_HINT_T0);
        _mm_prefetch(part + SECOND, _MM_HINT_T1);
    }
}

// Four bytes, in each of the eight lanes.
inline __m256i broadcast(const void * from) {
    int32_t value;
    memcpy(&value, from, sizeof(value));
    return _mm256_set1_epi32(value);
}

// Compilers turn a chain of integer additions into a tree, which needs more registers than there are.
inline __m256i in_order(__m256i sum) {
#if defined(__GNUC__)
    __asm__("" : "+x"(sum));
#endif
    return sum;
}

// Bytes of 16 rows as pairs of equal 16-bit numbers: a factor for sums of pairs. `half` chooses rows 0 to 7 or 8 to 15.
template <int half> inline __m256i pairs_unsigned(__m128i bytes) {
    const __m256i both  = _mm256_broadcastsi128_si256(bytes);
    const __m256i order = half == 0 ? _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,
                                                       4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1)
                                    : _mm256_setr_epi8(8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11, -1,
                                                       12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15, -1);
    return _mm256_shuffle_epi8(both, order);
}

// Bytes of 16 rows as pairs of equal 16-bit numbers with signs.
template <int half> inline __m256i pairs_signed(__m128i bytes) {
    const __m256i both  = _mm256_broadcastsi128_si256(bytes);
    const __m256i order = half == 0 ? _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,
                                                       -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7)
                                    : _mm256_setr_epi8(-1, 8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11,
                                                       -1, 12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(both, order), 8);
}

#ifdef CYLLAMA_VNNI
// Four bytes, in each of the sixteen lanes.
inline __m512i broadcast_16(const void * from) {
    int32_t value;
    memcpy(&value, from, sizeof(value));
    return _mm512_set1_epi32(value);
}

inline __m512i load_64(const void * from) { return _mm512_loadu_si512(from); }

// Compilers read memory again for each use, which costs more than the use.
inline __m512i in_register(__m512i values) {
#if defined(__GNUC__)
    __asm__("" : "+v"(values));
#endif
    return values;
}

// a | (b & mask)
inline __m512i or_and(__m512i a, __m512i b, __m512i mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); }
#endif

} // namespace cyllama
