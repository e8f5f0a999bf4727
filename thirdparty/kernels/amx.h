// What products in the tiles of AMX have in common.
#pragma once

#include "kernels.h"

#ifdef CYLLAMA_TILES

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cyllama {

// Whether the processor multiplies bytes and bfloat16 in tiles, and the system permits it (arch_prctl(2)).
inline bool has_tiles() {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    static const bool found = __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
                              syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    return found;
}

// Gives the tiles of a thread their shape, and at the end the shape that they had: ggml's products expect theirs.
class TileShapes {
    alignas(64) uint8_t before[64];

  public:
    // Tiles 0 to 3 are sums, 4 and 5 rows of `columns` bytes, 6 and 7 columns of as many.
    explicit TileShapes(int64_t columns = 64) {
        if (has_tiles()) {
            alignas(64) uint8_t shapes[64] = { 1 };
            for (int i = 0; i < 8; i++) {
                shapes[16 + 2 * i] = (uint8_t) (i == 4 || i == 5 ? columns : 64); // bytes of a row
                shapes[48 + i]     = (uint8_t) (i >= 6 ? columns / 4 : 16);       // rows
            }
            __asm__ volatile("" : : "r"(shapes), "r"(before) : "memory"); // GCC 12 does not see that 64 bytes are used
            _tile_storeconfig(before);
            _tile_loadconfig(shapes);
        }
    }

    ~TileShapes() {
        if (has_tiles()) {
            __asm__ volatile("" : : "r"(before) : "memory");
            _tile_loadconfig(before);
        }
    }

    TileShapes(const TileShapes &)             = delete;
    TileShapes & operator=(const TileShapes &) = delete;
};

} // namespace cyllama

#else

namespace cyllama {

constexpr bool has_tiles() { return false; }

struct TileShapes {
    explicit TileShapes(int64_t = 64) {}
};

} // namespace cyllama

#endif
