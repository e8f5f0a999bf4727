// Matrix products for x86 processors with AVX2 that read weights in an order of their own.
//
// A panel is 16 rows of a weight matrix. It contains one group of bytes for each block of columns (32 or 256), and in a
// group, values of the 16 rows that are multiplied by the same activations are neighbours: one activation, broadcast,
// is multiplied with 16 rows at once, and no sum crosses a vector.
//
// Activations are quantized to 8 bits in blocks of the same size, with the values that upstream's Q8_K and Q8_0 have.
#pragma once

#include "ggml.h"

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define CYLLAMA_VNNI
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)
#define CYLLAMA_TILES
#endif
#endif

namespace ggml::cpu {
class tensor_traits;
}

namespace cyllama {

constexpr int64_t ROWS        = 16;  // of a panel
constexpr int64_t BLOCK       = 256; // columns of a group of a K type
constexpr int64_t SMALL_BLOCK = 32;  // columns of a group of another type
constexpr size_t  TILED_SIZE  = 9216; // bytes of the groups that are unpacked at a time
constexpr int64_t TILED_ROWS  = 32;  // of activations: two tiles
#ifdef CYLLAMA_VNNI
constexpr int BATCH = 8; // rows of activations that a product takes at most
#else
constexpr int BATCH = 4;
#endif

#ifdef CYLLAMA_TILES
#define CYLLAMA_ALIGNED alignas(64) // a tile whose rows cross lines of the cache takes seven times as long to load
#else
#define CYLLAMA_ALIGNED
#endif

struct CYLLAMA_ALIGNED Activations { // one block of one row
    int8_t  values[BLOCK];
    float   scale;
    int16_t sums32[BLOCK / 32]; // of 32 values
#ifdef CYLLAMA_VNNI
    int32_t offsets16[BLOCK / 16]; // -32 * the sum of 16 values
#else
    int16_t sums16[BLOCK / 16]; // of 16 values
#endif

    void set_sums(int j, int first, int second) { // of the halves of 32 values
        sums32[j] = (int16_t) (first + second);
#ifdef CYLLAMA_VNNI
        offsets16[2 * j]     = -32 * first;
        offsets16[2 * j + 1] = -32 * second;
#else
        sums16[2 * j]     = (int16_t) first;
        sums16[2 * j + 1] = (int16_t) second;
#endif
    }
};

struct CYLLAMA_ALIGNED SmallActivations {
    int8_t  values[SMALL_BLOCK];
    float   scale;
    int32_t sum;
};

// Multiplies n_blocks groups of a panel with n rows of activations: one, or an even number up to BATCH. 16 results go
// to each of outputs; they are added to what is there unless the groups are the `first` of the panel. `from_memory`
// means that no cache has the groups yet.
using Product = void (*)(const uint8_t * panel, int64_t n_blocks, const void * const * rows, int n,
                         float * const * outputs, bool first, bool from_memory);

using Quantize = void (*)(const float * values, int64_t n_blocks, void * to);

// Products of many rows in the tiles of AMX; the numbers are those of the other products.
struct TiledKernel {
    size_t  group_size; // bytes of a group for tiles
    int64_t n_groups;   // at a time
    int64_t columns;    // of a tile
    void (*unpack)(const uint8_t * panel, int64_t n_blocks, uint8_t * groups);
    // Adds the products of groups and of TILED_ROWS rows of activations, which are row_size bytes apart.
    void (*multiply)(const uint8_t * groups, int64_t n_blocks, const char * rows, int64_t row_size,
                     float (*totals)[ROWS]);
};

struct Kernel {
    ggml_type type;
    int64_t   block;           // columns of a group
    size_t    activation_size; // bytes of the activations of a block
    Quantize  quantize;
    Quantize  quantize_reference; // the same numbers in plain C, as `reference`
    // Writes the panel of 16 rows, which follow each other in ggml's format.
    void (*repack)(const uint8_t * rows, int64_t n_blocks, uint8_t * panel);
    Product product;
    Product reference; // the same numbers in plain C
    // Rows of activations from which weights in ggml's own format are reordered for one product, by measurement.
    int64_t many_rows;
    // Writes the values of row r of a panel; null where the type has no lookup of rows.
    void (*row)(const uint8_t * panel, int64_t n_blocks, int64_t r, float * to);
    const TiledKernel * tiled; // null where there are no tiles
};

// Of types whose products in ggml's own format are as fast with VNNI.
#if defined(CYLLAMA_TILES)
constexpr int64_t many_rows(int64_t) { return 64; }
#elif defined(CYLLAMA_VNNI)
constexpr int64_t many_rows(int64_t) { return INT64_MAX; }
#else
constexpr int64_t many_rows(int64_t otherwise) { return otherwise; }
#endif

extern const Kernel q4_k_kernel;
extern const Kernel q5_k_kernel;
extern const Kernel q6_k_kernel;
extern const Kernel iq4_xs_kernel;
extern const Kernel q4_0_kernel;
extern const Kernel q5_0_kernel;
extern const Kernel q8_0_kernel;

// What CYLLAMA_KERNELS chooses.
enum class Choice { ours, reference, upstream };

Choice choice();

constexpr uintptr_t ALIGNMENT = 64;

// Work data, of ALIGNMENT bytes more than are needed, from the first place on that is aligned.
inline char * aligned(void * data) { return (char *) (((uintptr_t) data + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT); }

constexpr int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// The row that all dimensions but the first count.
inline char * row_of(const ggml_tensor * tensor, int64_t row) {
    if (row < tensor->ne[1]) {
        return (char *) tensor->data + row * tensor->nb[1]; // without the divisions, which are slow
    }
    const int64_t i1 = row % tensor->ne[1], i2 = row / tensor->ne[1] % tensor->ne[2];
    const int64_t i3 = row / tensor->ne[1] / tensor->ne[2];
    return (char *) tensor->data + i1 * tensor->nb[1] + i2 * tensor->nb[2] + i3 * tensor->nb[3];
}

// What computes products and convolutions with weights of 16-bit floats in ordinary memory; null for those that it does
// not serve.
ggml::cpu::tensor_traits * half_traits(const ggml_tensor * product);
ggml::cpu::tensor_traits * convolution_traits(const ggml_tensor * convolution);

void quantize(const float * values, int64_t n_blocks, void * to);                 // to Activations
void quantize_reference(const float * values, int64_t n_blocks, void * to);
void quantize_small(const float * values, int64_t n_blocks, void * to);           // to SmallActivations
void quantize_small_reference(const float * values, int64_t n_blocks, void * to);

} // namespace cyllama
