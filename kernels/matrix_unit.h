// Products of bf16 on the matrix unit of Intel's processors (AMX), on the panels of packed_linear.cpp.
//
// A panel's [K / 2, PANEL, 2] is how the unit wants its right operand: 16 pairs of input features by 16 output features are a tile,
// whose rows are PANEL pairs apart. Up to 16 rows of x by the 64 features of a panel take four tiles of sums. A row's sums
// do not depend on how many rows there are; they are not those of vector registers, so every product takes this way or none.

#pragma once

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes.h"

namespace {

constexpr int64_t PREFETCHED = 8192;  // bytes ahead
constexpr int UNIT_ROWS = 16, UNIT_FEATURES = 32, UNIT_COLUMNS = 16, UNIT_PANEL = 64;

// Linux gives the unit's registers to a process that asks for them; threads that it starts later have them too.
inline bool has_matrix_unit() {
  constexpr long ASK = 0x1023, TILE_DATA = 18;
  static const bool granted = syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
  return granted;
}

struct alignas(64) Tiles {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void shape(int tile, int64_t count, int64_t bytes) {
    rows[tile] = uint8_t(count);
    row_bytes[tile] = uint16_t(bytes);
  }
};

// Tiles 0 to 3 hold sums, 4 and 5 x and weights, 6 and 7 the same for input features that do not fill a tile.
inline void configure(int64_t rows, int64_t rest) {
  Tiles tiles;
  for (int sums = 0; sums < 4; ++sums) tiles.shape(sums, rows, 4 * UNIT_COLUMNS);
  tiles.shape(4, rows, 2 * UNIT_FEATURES);
  tiles.shape(5, UNIT_FEATURES / 2, 4 * UNIT_COLUMNS);
  tiles.shape(6, rest ? rows : 0, 2 * rest);
  tiles.shape(7, rest / 2, rest ? 4 * UNIT_COLUMNS : 0);
  _tile_loadconfig(&tiles);
}

// sums[rows, PANEL] of up to UNIT_ROWS rows, as configured.
inline void multiply_tiles(const bf16* x, const bf16* panel, int64_t depth, float* sums) {
  constexpr int64_t ACROSS = 4 * UNIT_PANEL;  // bytes from one pair of input features to the next
  const int64_t rest = depth % UNIT_FEATURES, along = 2 * depth;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int64_t k = 0;
  for (; k < depth - rest; k += UNIT_FEATURES) {
    const bf16* weights = panel + k * UNIT_PANEL;
    for (int line = 0; line < 64; ++line) __builtin_prefetch(reinterpret_cast<const char*>(weights) + PREFETCHED + 64 * line, 0, 2);
    _tile_loadd(4, x + k, along);
    _tile_loadd(5, weights, ACROSS);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, weights + 2 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(1, 4, 5);
    _tile_loadd(5, weights + 4 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(5, weights + 6 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(3, 4, 5);
  }
  if (rest) {
    const bf16* weights = panel + k * UNIT_PANEL;
    _tile_loadd(6, x + k, along);
    _tile_loadd(7, weights, ACROSS);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(7, weights + 2 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, weights + 4 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(7, weights + 6 * UNIT_COLUMNS, ACROSS);
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_stored(0, sums, ACROSS);
  _tile_stored(1, sums + UNIT_COLUMNS, ACROSS);
  _tile_stored(2, sums + 2 * UNIT_COLUMNS, ACROSS);
  _tile_stored(3, sums + 3 * UNIT_COLUMNS, ACROSS);
}

// `rows` rows of x against panels `from` to `to`.
inline void multiply_on_unit(const bf16* x, const bf16* weight, const float* bias, bf16* out, int64_t rows, int64_t columns,
                             int64_t depth, int64_t from, int64_t to) {
  alignas(64) float sums[UNIT_ROWS * UNIT_PANEL];
  int64_t configured = 0;
  for (int64_t p = from; p < to; ++p)
    for (int64_t row = 0; row < rows; row += UNIT_ROWS) {
      const int64_t count = std::min<int64_t>(UNIT_ROWS, rows - row);
      if (count != configured) configure(configured = count, depth % UNIT_FEATURES);
      multiply_tiles(x + row * depth, weight + p * UNIT_PANEL * depth, depth, sums);
      const int64_t first = p * UNIT_PANEL, width = std::min<int64_t>(UNIT_PANEL, columns - first);
      for (int64_t r = 0; r < count; ++r)
        for (int64_t c = 0; c < width; ++c) {
          const float sum = sums[r * UNIT_PANEL + c];
          store(out[(row + r) * columns + first + c], bias ? sum + bias[first + c] : sum);
        }
    }
  _tile_release();
}

}  // namespace
#endif
