#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "simd.h"

namespace cyllama {

// The values that quantize_row_q8_K_ref gives; the signs of scale and values may both be opposite.
void quantize_reference(const float * values, int64_t n_blocks, void * blocks) {
    auto * to = (Activations *) blocks;
    for (int64_t i = 0; i < n_blocks; i++, values += BLOCK) {
        float largest = 0;
        for (int64_t k = 0; k < BLOCK; k++) {
            largest = fmaxf(largest, fabsf(values[k]));
        }
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        to[i].scale = largest > 0 ? 1.0f / inverse : 0.0f;
        int sums[BLOCK / 16] = {};
        for (int64_t k = 0; k < BLOCK; k++) {
            to[i].values[k] = (int8_t) fminf(fmaxf(nearbyintf(inverse * values[k]), -127.0f), 127.0f);
            sums[k / 16] += to[i].values[k];
        }
        for (int j = 0; j < BLOCK / 32; j++) {
            to[i].set_sums(j, sums[2 * j], sums[2 * j + 1]);
        }
    }
}

namespace {

// The sum of eight 32-bit numbers.
inline int32_t total(__m256i numbers) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// The largest magnitude of n values, a multiple of 32.
inline float largest_of(const float * values, int64_t n) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 most[4];
    for (int j = 0; j < 4; j++) {
        most[j] = _mm256_and_ps(_mm256_loadu_ps(values + 8 * j), magnitude);
    }
    for (int64_t k = 32; k < n; k += 32) {
        for (int j = 0; j < 4; j++) {
            most[j] = _mm256_max_ps(most[j], _mm256_and_ps(_mm256_loadu_ps(values + k + 8 * j), magnitude));
        }
    }
    const __m256 all = _mm256_max_ps(_mm256_max_ps(most[0], most[1]), _mm256_max_ps(most[2], most[3]));
    __m128 few = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    few = _mm_max_ps(few, _mm_movehl_ps(few, few));
    return _mm_cvtss_f32(_mm_max_ss(few, _mm_movehdup_ps(few)));
}

// Writes 32 values as bytes; returns the sums of their halves.
inline void round_32(const float * values, __m256 factor, int8_t * to, int32_t (&sums)[2]) {
    __m256i part[4];
    for (int j = 0; j < 4; j++) {
        part[j] = _mm256_cvtps_epi32(_mm256_mul_ps(factor, _mm256_loadu_ps(values + 8 * j)));
    }
    // packing works in halves: the order of groups of four is restored afterwards
    const __m256i words[2] = { _mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3]) };
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words[0], words[1]), order);
    _mm256_storeu_si256((__m256i *) to, bytes);
    for (int j = 0; j < 2; j++) {
        sums[j] = total(_mm256_madd_epi16(words[j], _mm256_set1_epi16(1)));
    }
}

} // namespace

void quantize(const float * values, int64_t n_blocks, void * blocks) {
    auto * to = (Activations *) blocks;
    for (int64_t i = 0; i < n_blocks; i++, values += BLOCK) {
        const float largest = largest_of(values, BLOCK);
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        to[i].scale = largest > 0 ? 1.0f / inverse : 0.0f;
        for (int k = 0; k < BLOCK; k += 32) {
            int32_t sums[2];
            round_32(values + k, _mm256_set1_ps(inverse), to[i].values + k, sums);
            to[i].set_sums(k / 32, sums[0], sums[1]);
        }
    }
}

void quantize_small_reference(const float * values, int64_t n_blocks, void * blocks) {
    auto * to = (SmallActivations *) blocks;
    for (int64_t i = 0; i < n_blocks; i++, values += SMALL_BLOCK) {
        float largest = 0;
        for (int64_t k = 0; k < SMALL_BLOCK; k++) {
            largest = fmaxf(largest, fabsf(values[k]));
        }
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        to[i].scale = largest / 127.0f;
        to[i].sum = 0;
        for (int64_t k = 0; k < SMALL_BLOCK; k++) {
            to[i].values[k] = (int8_t) fminf(fmaxf(nearbyintf(inverse * values[k]), -127.0f), 127.0f);
            to[i].sum += to[i].values[k];
        }
    }
}

void quantize_small(const float * values, int64_t n_blocks, void * blocks) {
    auto * to = (SmallActivations *) blocks;
    for (int64_t i = 0; i < n_blocks; i++, values += SMALL_BLOCK) {
        const float largest = largest_of(values, SMALL_BLOCK);
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        int32_t sums[2];
        round_32(values, _mm256_set1_ps(inverse), to[i].values, sums);
        to[i].scale = largest / 127.0f;
        to[i].sum   = sums[0] + sums[1];
    }
}

} // namespace cyllama

#endif
