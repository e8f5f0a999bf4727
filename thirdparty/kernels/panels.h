// Products of 32-bit floats, in blocks that stay in the caches: rows of one matrix, of which values are broadcast, with
// panels of the other, in which values of PANEL rows are neighbours.
#pragma once

#include "simd.h"

namespace cyllama {

#ifdef __AVX512F__
using Vector = __m512;
constexpr int LANES = 16, AT_ONCE = 12; // rows of the first matrix: their sums fill the registers
inline Vector read(const ggml_fp16_t * from) { return _mm512_cvtph_ps(load(from)); }
inline Vector in_all(float value) { return _mm512_set1_ps(value); }
inline Vector multiply_add(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }
inline Vector read(const float * from) { return _mm512_loadu_ps(from); }
inline void write(float * to, Vector values) { _mm512_storeu_ps(to, values); }
#else
using Vector = __m256;
constexpr int LANES = 8, AT_ONCE = 6;
inline Vector read(const ggml_fp16_t * from) { return _mm256_cvtph_ps(load_16(from)); }
inline Vector in_all(float value) { return _mm256_set1_ps(value); }
inline Vector multiply_add(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }
inline Vector read(const float * from) { return _mm256_loadu_ps(from); }
inline void write(float * to, Vector values) { _mm256_storeu_ps(to, values); }
#endif

constexpr int64_t PANEL = 2 * LANES;
constexpr int64_t TILE  = 96; // rows at a time
static_assert(TILE % AT_ONCE == 0 && TILE % 8 == 0);

// Adds the products of AT_ONCE rows, which are `stride` values apart, and a panel of 16-bit or 32-bit floats.
template <int64_t stride, typename Value>
static void multiply_panel(const float * rows, const void * values, int64_t depth, float (*sums)[PANEL]) {
    const auto * panel = (const Value *) values;
    Vector totals[AT_ONCE][2];
#pragma GCC unroll 12
    for (int r = 0; r < AT_ONCE; r++) {
        totals[r][0] = read(sums[r]);
        totals[r][1] = read(sums[r] + LANES);
    }
    for (int64_t k = 0; k < depth; k++) {
        const Vector with[2] = { read(panel + k * PANEL), read(panel + k * PANEL + LANES) };
#pragma GCC unroll 12
        for (int r = 0; r < AT_ONCE; r++) {
            const Vector value = in_all(rows[r * stride + k]);
            totals[r][0] = multiply_add(value, with[0], totals[r][0]);
            totals[r][1] = multiply_add(value, with[1], totals[r][1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < AT_ONCE; r++) {
        write(sums[r], totals[r][0]);
        write(sums[r] + LANES, totals[r][1]);
    }
}

inline float to_float(float value) { return value; }
inline float to_float(ggml_fp16_t value) { return half_to_float(value); }

template <int64_t stride, typename Value>
static void multiply_panel_reference(const float * rows, const void * values, int64_t depth, float (*sums)[PANEL]) {
    const auto * panel = (const Value *) values;
    for (int r = 0; r < AT_ONCE; r++) {
        for (int64_t i = 0; i < PANEL; i++) {
            for (int64_t k = 0; k < depth; k++) {
                sums[r][i] = fmaf(rows[r * stride + k], to_float(panel[k * PANEL + i]), sums[r][i]);
            }
        }
    }
}

} // namespace cyllama
