// Products of panels in the tiles of AMX, which multiply bfloat16. A float becomes the sum of two of them, a high part
// and a low part of 8 bits each, and all four products of parts count. A 16-bit float has 11 bits and loses none: the
// products are those of 32-bit floats. A 32-bit float loses less than 2^-17 of itself.
#pragma once

#include "amx.h"
#include "panels.h"

namespace cyllama {

// Adds the products of rows_at_once() rows and a panel.
using PanelProduct = void (*)(const float * rows, const void * panel, int64_t depth, float (*sums)[PANEL]);

#ifdef CYLLAMA_TILES

constexpr int64_t PAIRED = 32; // rows of the first matrix at once, and columns of a step: two tiles of 16
static_assert(TILE % PAIRED == 0 && PANEL == PAIRED);

inline __m512i high_bits(__m512i floats) { return _mm512_and_si512(floats, _mm512_set1_epi32((int) 0xffff0000)); }

struct Parts { // in the upper halves of 32-bit numbers; of the lower ones, those of `low` are not zero
    __m512i high, low;

    explicit Parts(const float * from) {
        const __m512i half = _mm512_set1_epi32(0x8000), bits = _mm512_loadu_si512(from);
        high = high_bits(_mm512_add_epi32(bits, half));
        low  = _mm512_add_epi32(_mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(bits),
                                                                  _mm512_castsi512_ps(high))), half);
    }
};

// For tiles, replaces each pair of rows of a panel by a row of high parts and one of low parts, in which pairs are
// neighbours.
inline void split_panel(float * panel, int64_t depth) {
    if (!has_tiles()) {
        return;
    }
    for (float * pair = panel; pair < panel + depth * PANEL; pair += 2 * PANEL) {
        for (int64_t i = 0; i < PANEL; i += LANES) {
            const Parts first(pair + i), second(pair + PANEL + i);
            const __m512i low = high_bits(second.low);
            _mm512_storeu_si512(pair + i, _mm512_or_si512(_mm512_srli_epi32(first.high, 16), second.high));
            _mm512_storeu_si512(pair + PANEL + i, _mm512_or_si512(_mm512_srli_epi32(first.low, 16), low));
        }
    }
}

// For tiles, replaces each PAIRED values of a row by their high parts and their low parts.
inline void split_row(float * row, int64_t depth) {
    if (!has_tiles()) {
        return;
    }
    alignas(64) uint16_t upper_halves[PAIRED];
    for (int i = 0; i < PAIRED; i++) {
        upper_halves[i] = (uint16_t) (2 * i + 1);
    }
    const __m512i upper = _mm512_load_si512(upper_halves);
    for (int64_t k = 0; k < depth; k += PAIRED) {
        const Parts first(row + k), second(row + k + LANES);
        _mm512_storeu_si512(row + k, _mm512_permutex2var_epi16(first.high, upper, second.high));
        _mm512_storeu_si512(row + k + LANES, _mm512_permutex2var_epi16(first.low, upper, second.low));
    }
}

template <int64_t stride>
__attribute__((target("amx-bf16"))) static void multiply_tiles(const float * rows, const void * panel, int64_t depth,
                                                               float (*sums)[PANEL]) {
    constexpr int64_t ROW = stride * sizeof(float), PAIR = 2 * PANEL * sizeof(float), LOW = PAIRED * sizeof(uint16_t);
    constexpr int64_t SUMS = PANEL * sizeof(float);
    __asm__ volatile("" : : : "memory"); // the intrinsics of GCC 12 do not tell that they read memory
    _tile_loadd(0, sums[0], SUMS);
    _tile_loadd(1, sums[0] + 16, SUMS);
    _tile_loadd(2, sums[16], SUMS);
    _tile_loadd(3, sums[16] + 16, SUMS);
    for (int64_t k = 0; k < depth; k += PAIRED) {
        const char * first = (const char *) (rows + k), * second = first + 16 * ROW;
        const char * high = (const char *) panel + k * PANEL * sizeof(float), * low = high + PANEL * sizeof(float);
        _tile_loadd(4, first, ROW);
        _tile_loadd(6, high, PAIR);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, high + 64, PAIR);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, second, ROW);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, first + LOW, ROW);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, second + LOW, ROW);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(6, low, PAIR);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, low + 64, PAIR);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, first, ROW);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, second, ROW);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums[0], SUMS);
    _tile_stored(1, sums[0] + 16, SUMS);
    _tile_stored(2, sums[16], SUMS);
    _tile_stored(3, sums[16] + 16, SUMS);
}

inline float part_of(const uint16_t * parts, int64_t i) {
    const uint32_t bits = (uint32_t) parts[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// The additions are those of TDPBF16PS: one sum of the even columns of a step, one of the odd ones.
template <int64_t stride>
static void multiply_tiles_reference(const float * rows, const void * panel, int64_t depth, float (*sums)[PANEL]) {
    constexpr struct { int64_t row, panel; } PARTS[] = { { 0, 0 }, { 1, 0 }, { 1, 1 }, { 0, 1 } }; // 0 is the high one
    for (int64_t k = 0; k < depth; k += PAIRED) {
        for (auto part : PARTS) {
            const auto * other = (const uint16_t *) ((const float *) panel + (k + part.panel) * PANEL);
            for (int64_t r = 0; r < PAIRED; r++) {
                const auto * row = (const uint16_t *) (rows + r * stride + k + part.row * LANES);
                for (int64_t i = 0; i < PANEL; i++) {
                    float even = 0.0f, odd = 0.0f;
                    for (int64_t pair = 0; pair < PAIRED; pair += 2) {
                        even = fmaf(part_of(row, pair), part_of(other, 2 * (pair * PANEL + i)), even);
                        odd  = fmaf(part_of(row, pair + 1), part_of(other, 2 * (pair * PANEL + i) + 1), odd);
                    }
                    sums[r][i] += even + odd;
                }
            }
        }
    }
}

#else

constexpr int64_t PAIRED = 1;
inline void split_panel(float *, int64_t) {}
inline void split_row(float *, int64_t) {}

#endif

inline int64_t rows_at_once() { return has_tiles() ? PAIRED : AT_ONCE; }

// Columns with those that fill the last step.
inline int64_t whole_steps(int64_t columns) { return has_tiles() ? parts_of(columns, PAIRED) * PAIRED : columns; }

// The product of rows that are `stride` values apart and a panel of values; of floats in parts if has_tiles().
template <int64_t stride, typename Value> PanelProduct panel_product() {
    const bool is_reference = choice() == Choice::reference;
#ifdef CYLLAMA_TILES
    if (has_tiles()) {
        return is_reference ? multiply_tiles_reference<stride> : multiply_tiles<stride>;
    }
#endif
    return is_reference ? multiply_panel_reference<stride, Value> : multiply_panel<stride, Value>;
}

} // namespace cyllama
