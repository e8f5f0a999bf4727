// Products of quantized weights with many rows of activations in the tiles of AMX.
#pragma once

#include "amx.h"
#include "simd.h"

#ifdef CYLLAMA_TILES
#define CYLLAMA_TILED(...) &__VA_ARGS__
#else
#define CYLLAMA_TILED(...) nullptr
#endif

namespace cyllama {

#ifdef CYLLAMA_TILES

// 16 rows of 256 columns of a K type. A value times its scale has up to 14 bits: 128 * high + low, and the sum over a
// block needs no other factor.
struct alignas(64) TiledGroup {
    int8_t  high[4][16][4 * ROWS], low[4][16][4 * ROWS]; // [64 columns][four columns]
    float   d[ROWS], dmin[ROWS];
    int16_t minima[4][2 * ROWS]; // [pair of parts of 32 columns]

    // Scales of 16 rows for put(): four numbers of 16 bits of each row.
    struct Factors {
        __m512i rows[2];

        explicit Factors(__m128i scales) {
            const __m512i pairs = _mm512_mask_mov_epi16(_mm512_cvtepi8_epi32(scales), 0xaaaaaaaa,
                                                        _mm512_slli_epi32(_mm512_cvtepi8_epi32(scales), 16));
            const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            rows[0] = _mm512_permutexvar_epi32(twice, pairs);
            rows[1] = _mm512_permutexvar_epi32(_mm512_add_epi32(twice, _mm512_set1_epi32(8)), pairs);
        }
    };

    // Stores four columns of 16 rows.
    void put(int column, __m512i values, const Factors & factors) {
        for (int h = 0; h < 2; h++) {
            const __m256i half = h == 0 ? _mm512_castsi512_si256(values) : _mm512_extracti64x4_epi64(values, 1);
            const __m512i scaled = _mm512_mullo_epi16(_mm512_cvtepi8_epi16(half), factors.rows[h]);
            const __m512i lower = _mm512_and_si512(scaled, _mm512_set1_epi16(127));
            const int at = column % 64 / 4;
            store(high[column / 64][at] + 32 * h, _mm512_cvtepi16_epi8(_mm512_srai_epi16(scaled, 7)));
            store(low[column / 64][at] + 32 * h, _mm512_cvtepi16_epi8(lower));
        }
    }

  private:
    static void store(int8_t * to, __m256i values) { _mm256_storeu_si256((__m256i *) to, values); }
};

// Adds a block of 16 rows of activations; `sums` are of the high and of the low parts.
template <bool has_minima>
inline void add_block(const TiledGroup & group, const char * rows, int64_t row_size, const int32_t (*sums)[16][ROWS],
                      float (*totals)[ROWS]) {
    const __m512 d = _mm512_load_ps(group.d), dmin = _mm512_load_ps(group.dmin);
    __m512i minima[4];
    for (int pair = 0; pair < 4; pair++) {
        minima[pair] = load_64(group.minima[pair]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 16; r++) {
        const auto & with = *(const Activations *) (rows + r * row_size);
        const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(load_64(sums[0][r]), 7), load_64(sums[1][r]));
        __m512 value = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sum));
        if (has_minima) {
            __m512i offset = _mm512_setzero_si512();
            for (int pair = 0; pair < 4; pair++) {
                offset = _mm512_dpwssd_epi32(offset, minima[pair], broadcast_16(with.sums32 + 2 * pair));
            }
            value = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(offset), value);
        }
        _mm512_store_ps(totals[r], _mm512_fmadd_ps(_mm512_set1_ps(with.scale), value, _mm512_load_ps(totals[r])));
    }
}

template <bool has_minima>
static void multiply_tiled(const uint8_t * groups, int64_t n_blocks, const char * rows, int64_t row_size,
                           float (*totals)[ROWS]) {
    alignas(64) int32_t sums[4][16][ROWS];
    for (int64_t i = 0; i < n_blocks; i++, rows += sizeof(Activations)) {
        const auto & group = ((const TiledGroup *) groups)[i];
        const char * first = rows + offsetof(Activations, values), * second = first + 16 * row_size;
        __asm__ volatile("" : : : "memory"); // the intrinsics of GCC 12 do not tell that they read memory
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
#pragma GCC unroll 4
        for (int part = 0; part < 4; part++) {
            _tile_loadd(4, first + 64 * part, row_size);
            _tile_loadd(6, group.high[part], 64);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(7, group.low[part], 64);
            _tile_dpbssd(1, 4, 7);
            _tile_loadd(5, second + 64 * part, row_size);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
        add_block<has_minima>(group, rows, row_size, sums, totals);
        add_block<has_minima>(group, rows + 16 * row_size, row_size, sums + 2, totals + 16);
    }
}

// One group at a time stays in the first cache, beside the activations.
template <void (*unpack)(const uint8_t *, int64_t, uint8_t *), bool has_minima>
constexpr TiledKernel tiled = { sizeof(TiledGroup), 1, 64, unpack, multiply_tiled<has_minima> };

// 16 rows of 32 columns of another type.
struct alignas(64) TiledSmallGroup {
    int8_t values[8][4 * ROWS];
    float  d[ROWS];
};

// The vectors' work on a block is beside the tiles' work on the next one.
static void multiply_tiled_small(const uint8_t * groups, int64_t n_blocks, const char * rows, int64_t row_size,
                                 float (*totals)[ROWS]) {
    alignas(64) int32_t sums[2][16][ROWS];
    const auto * all = (const TiledSmallGroup *) groups;
    __asm__ volatile("" : : : "memory"); // the intrinsics of GCC 12 do not tell that they read memory
    for (int half = 0; half < 2; half++, rows += 16 * row_size, totals += 16) {
        __m512 total[16];
        const auto add = [&](int64_t i) {
            const __m512 d = _mm512_load_ps(all[i].d);
#pragma GCC unroll 16
            for (int r = 0; r < 16; r++) {
                const auto & with = ((const SmallActivations *) (rows + r * row_size))[i];
                const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(with.scale));
                total[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(load_64(sums[i % 2][r])), total[r]);
            }
        };
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            total[r] = _mm512_load_ps(totals[r]);
        }
        for (int64_t i = 0; i < n_blocks; i++) {
            _tile_zero(0);
            _tile_loadd(4, rows + i * sizeof(SmallActivations) + offsetof(SmallActivations, values), row_size);
            _tile_loadd(6, all[i].values, 64);
            _tile_dpbssd(0, 4, 6);
            _tile_stored(0, sums[i % 2], 64);
            if (i > 0) {
                add(i - 1);
            }
        }
        add(n_blocks - 1);
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            _mm512_store_ps(totals[r], total[r]);
        }
    }
}

template <void (*unpack)(const uint8_t *, int64_t, uint8_t *)>
constexpr TiledKernel tiled_small = { sizeof(TiledSmallGroup), 16, 32, unpack, multiply_tiled_small };

static_assert(sizeof(TiledGroup) <= TILED_SIZE && 16 * sizeof(TiledSmallGroup) <= TILED_SIZE);

#endif

} // namespace cyllama
