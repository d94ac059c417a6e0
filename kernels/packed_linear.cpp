// Linear layer on weights packed in panels: out = x W^T + bias.
//
// Legend: M rows of x, N output features, K input features. A panel holds PANEL output features, input feature by input
// feature: fp32 as [K, PANEL], bf16 as [K / 2, PANEL, 2], because two products are summed in one instruction. One row
// streams the weights once, several panels side by side, because a core fetches ahead in each of them; more rows go in groups of ROWS, whose sums stay in registers while the panel
// stays in the second-level cache. Meanwhile each group fetches its share of the next panel, so that memory and
// arithmetic overlap.

#include "lanes.h"
#include "matrix_unit.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr int PANEL = 64;
constexpr int ROWS = 6;
constexpr int COLUMNS = TILE_COLUMNS;
constexpr int TILE = COLUMNS * LANES;
constexpr int STREAMS = LANES == 16 ? 4 : 2;  // panels of which one row's sums fit in registers

// Asks for `lines` cache lines at each call, one after another.
struct Prefetch {
  const char* at;
  int lines;
  void step() {
    for (int line = 0; line < lines; ++line, at += 64) __builtin_prefetch(at, 0, 2);
  }
};

// sums[R, TILE] of R rows and one tile of a panel.
template <int R>
inline void multiply(const float* x, const float* panel, int64_t depth, Prefetch fetch, Lanes (&sums)[R][COLUMNS]) {
  for (int64_t k = 0; k < depth; ++k, panel += PANEL, fetch.step())
    for (int r = 0; r < R; ++r) {
      const float a = x[r * depth + k];
      for (int j = 0; j < COLUMNS; ++j) sums[r][j] += a * lanes(panel + j * LANES);
    }
}

typedef int32_t Pairs __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

inline Lanes add_pair_products(Lanes sum, int32_t a, Pairs b) {
#ifdef __AVX512BF16__
  return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
#else
  const Pairs both = Pairs{} + a, high = Pairs{} + int32_t(0xffff0000);
  return sum + (Lanes)(both << 16) * (Lanes)(b << 16) + (Lanes)(both & high) * (Lanes)(b & high);
#endif
}

template <int R>
inline void multiply(const bf16* x, const bf16* panel, int64_t depth, Prefetch fetch, Lanes (&sums)[R][COLUMNS]) {
  for (int64_t k = 0; k < depth; k += 2, panel += 2 * PANEL, fetch.step())
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * depth + k, 4);
      for (int j = 0; j < COLUMNS; ++j)
        sums[r][j] = add_pair_products(sums[r][j], pair, *reinterpret_cast<const Pairs*>(panel + j * 2 * LANES));
    }
}

struct Sizes {
  int64_t rows, columns, depth;
};

// R rows of x against one panel; `out` points to the panel's first feature.
template <class E, int R>
void multiply_rows(const E* x, const E* panel, const float* bias, E* out, Sizes n, int64_t width, Prefetch fetch) {
  constexpr int PACKED = sizeof(float) / sizeof(E);  // input features side by side in a panel
  for (int64_t first = 0; first < width; first += TILE) {
    Lanes sums[R][COLUMNS] = {};
    multiply<R>(x, panel + first * PACKED, n.depth, fetch, sums);
    fetch.lines = 0;
    const int64_t count = std::min<int64_t>(TILE, width - first);
    for (int r = 0; r < R; ++r) {
      float row[TILE];
      for (int j = 0; j < COLUMNS; ++j) lanes(row + j * LANES) = sums[r][j];
      for (int64_t c = 0; c < count; ++c) store(out[r * n.columns + first + c], bias ? row[c] + bias[first + c] : row[c]);
    }
  }
}

// As `multiply_rows`, with 1 to ROWS rows known at run time.
template <class E, int R = ROWS>
void multiply_group(int64_t rows, const E* x, const E* panel, const float* bias, E* out, Sizes n, int64_t width, Prefetch fetch) {
  if constexpr (R > 0) {
    if (rows == R) return multiply_rows<E, R>(x, panel, bias, out, n, width, fetch);
    multiply_group<E, R - 1>(rows, x, panel, bias, out, n, width, fetch);
  }
}

template <class E>
void multiply_panel(const E* x, const E* panel, const float* bias, E* out, Sizes n, int64_t width) {
  const int64_t groups = (n.rows + ROWS - 1) / ROWS, bytes = n.depth * PANEL * int64_t(sizeof(E));
  const int64_t steps = n.depth * int64_t(sizeof(E)) / 4, shared = steps * 64 * groups;
  // A single group is bound by memory alone, and the processor foresees its next addresses by itself.
  const int lines = groups > 1 ? int((bytes + shared - 1) / shared) : 0;
  Prefetch fetch{reinterpret_cast<const char*>(panel) + bytes, lines};
  for (int64_t left = groups, row = 0; left > 0; --left, fetch.at += steps * 64 * lines) {
    const int64_t rows = (n.rows - row + left - 1) / left;  // groups of equal size fetch at an even pace
    multiply_group<E>(rows, x + row * n.depth, panel, bias, out + row * n.columns, n, width, fetch);
    row += rows;
  }
}

// sums[STREAMS, TILE] of one row and a tile of each of so many panels, `apart` elements from each other.
inline void multiply_streams(const float* x, const float* panel, int64_t apart, int64_t depth, Lanes (&sums)[STREAMS][COLUMNS]) {
  for (int64_t k = 0; k < depth; ++k, panel += PANEL)
    for (int s = 0; s < STREAMS; ++s)
      for (int j = 0; j < COLUMNS; ++j) sums[s][j] += x[k] * lanes(panel + s * apart + j * LANES);
}

inline void multiply_streams(const bf16* x, const bf16* panel, int64_t apart, int64_t depth, Lanes (&sums)[STREAMS][COLUMNS]) {
  for (int64_t k = 0; k < depth; k += 2, panel += 2 * PANEL) {
    int32_t pair;
    std::memcpy(&pair, x + k, 4);
    for (int s = 0; s < STREAMS; ++s)
      for (int j = 0; j < COLUMNS; ++j)
        sums[s][j] = add_pair_products(sums[s][j], pair, *reinterpret_cast<const Pairs*>(panel + s * apart + j * 2 * LANES));
  }
}

// One row against STREAMS panels from `panel` on; `out` and `bias` point to the first one's first feature.
template <class E>
void multiply_one_row(const E* x, const E* panel, const float* bias, E* out, Sizes n, int64_t width) {
  constexpr int PACKED = sizeof(float) / sizeof(E);
  for (int64_t first = 0; first < PANEL; first += TILE) {
    Lanes sums[STREAMS][COLUMNS] = {};
    multiply_streams(x, panel + first * PACKED, PANEL * n.depth, n.depth, sums);
    for (int s = 0; s < STREAMS; ++s) {
      const int64_t start = s * PANEL + first, count = std::min<int64_t>(TILE, width - start);
      float row[TILE];
      for (int j = 0; j < COLUMNS; ++j) lanes(row + j * LANES) = sums[s][j];
      for (int64_t c = 0; c < count; ++c) store(out[start + c], bias ? row[c] + bias[start + c] : row[c]);
    }
  }
}

template <class E>
void run_one_row(const E* x, const E* weight, const float* bias, E* out, Sizes n, int threads) {
  const int64_t groups = (n.columns + PANEL - 1) / PANEL / STREAMS;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * STREAMS * PANEL, width = std::min<int64_t>(STREAMS * PANEL, n.columns - first);
    multiply_one_row<E>(x, weight + first * n.depth, bias ? bias + first : nullptr, out + first, n, width);
  }
}

template <class E>
void run(const E* x, const E* weight, const float* bias, E* out, Sizes n, int threads) {
  const int64_t panels = (n.columns + PANEL - 1) / PANEL;
  if (n.rows == 1 && panels % STREAMS == 0 && panels >= STREAMS * threads) return run_one_row<E>(x, weight, bias, out, n, threads);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t first = p * PANEL, width = std::min<int64_t>(PANEL, n.columns - first);
    multiply_panel<E>(x, weight + first * n.depth, bias ? bias + first : nullptr, out + first, n, width);
  }
}

}  // namespace

extern "C" void tercet_packed_linear_f32(const void* x, const void* weight, const float* bias, void* out, int64_t rows,
                                         int64_t columns, int64_t depth, int threads) {
  run(static_cast<const float*>(x), static_cast<const float*>(weight), bias, static_cast<float*>(out),
      {rows, columns, depth}, threads);
}
extern "C" void tercet_packed_linear_bf16(const void* x, const void* weight, const float* bias, void* out, int64_t rows,
                                          int64_t columns, int64_t depth, int threads) {
  const bf16 *inputs = static_cast<const bf16*>(x), *weights = static_cast<const bf16*>(weight);
#ifdef __AMX_BF16__
  if (has_matrix_unit()) {
    const int64_t panels = (columns + PANEL - 1) / PANEL, share = (panels + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < panels; first += share)
      multiply_on_unit(inputs, weights, bias, static_cast<bf16*>(out), rows, columns, depth, first, std::min(first + share, panels));
    return;
  }
#endif
  run(inputs, weights, bias, static_cast<bf16*>(out), {rows, columns, depth}, threads);
}
