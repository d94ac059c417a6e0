// Attention over paged keys and values on a CPU: writes a step's new keys and values into their pages, then attends.
//
// Legend: N query rows of all requests, H query heads, G key/value heads, D head dim, T tokens of a page.
// Every request is a run of rows; row i of request s stands at position contexts[s] + i - query_starts[s] and sees the
// positions up to its own, at most `window` of them. Softmax is online over chunks of CHUNK keys, all sums in fp32.
//
// Work is split into tiles of (request, key/value head, a few query rows x the H/G heads that share that head), so one
// pass over the keys serves all of them.
//
// A row's result depends on its query, its position and the keys and values it sees, to the last bit: chunks begin at
// multiples of CHUNK, sums run in the same order however many rows share a tile, and masked keys add exact zeros. A
// request that is replayed as one prefill therefore gets the very keys and values that it had from decoding.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

#include "lanes.h"

namespace {

constexpr int CHUNK = 64;     // keys a pass; a multiple of LANES
constexpr int ROWS_MAX = 64;  // query rows x heads of a tile: 64 keep the tile in the first-level cache at D = 64
constexpr float MASKED = -1e30f;

}  // namespace

struct Batch {  // mirrored in paged_attention.py, field by field
  const void *q, *k, *v;
  void* out;
  void* pages;  // this layer's keys of page 0
  const int32_t *query_starts, *contexts, *tables;
  const float* sinks;  // one logit a query head, or null
  int64_t q_row, q_head, k_row, k_head, v_row, v_head;  // strides, in elements; D is contiguous everywhere
  int64_t page_stride, value_offset, page_head, table_width;
  int32_t requests, q_heads, kv_heads, head_dim, page_tokens, window, threads;
  float scale, softcap;  // softcap 0: none; window 0: none
};

namespace {

// One tile's scratch memory, allocated once a thread and call. Rows are `width` long and zero beyond the head dim.
struct Scratch {
  explicit Scratch(int head_dim)
      : width((head_dim + LANES - 1) / LANES * LANES),
        memory(new float[size_t(width) * (2 * ROWS_MAX + 3 * CHUNK) + size_t(ROWS_MAX) * (CHUNK + 2)]()) {
    q = memory.get();
    out = q + size_t(ROWS_MAX) * width;
    keys = out + size_t(ROWS_MAX) * width;
    columns = keys + size_t(CHUNK) * width;
    values = columns + size_t(CHUNK) * width;
    scores = values + size_t(CHUNK) * width;
    peak = scores + size_t(ROWS_MAX) * CHUNK;
    sum = peak + ROWS_MAX;
  }
  const int width;  // head dim rounded up to whole registers; the rest stays zero
  std::unique_ptr<float[]> memory;
  float *q, *out, *keys, *columns, *values, *scores, *peak, *sum;
};

// c[R, C registers] += a[R, depth] b[depth, C registers], with the sums held in registers.
template <int R, int C>
inline void multiply_tile(const float* a, int64_t a_row, const float* b, int64_t b_row, float* c, int64_t c_row, int depth) {
  Lanes sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < C; ++j) sums[r][j] = lanes(c + r * c_row + j * LANES);
  for (int d = 0; d < depth; ++d)
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < C; ++j) sums[r][j] += a[r * a_row + d] * lanes(b + d * b_row + j * LANES);
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < C; ++j) lanes(c + r * c_row + j * LANES) = sums[r][j];
}

template <int R>
void multiply_rows(const float* a, int64_t a_row, const float* b, int64_t b_row, float* c, int64_t c_row, int depth,
                   int columns) {
  int j = 0;
  for (; j + TILE_COLUMNS * LANES <= columns; j += TILE_COLUMNS * LANES)
    multiply_tile<R, TILE_COLUMNS>(a, a_row, b + j, b_row, c + j, c_row, depth);
  for (; j < columns; j += LANES) multiply_tile<R, 1>(a, a_row, b + j, b_row, c + j, c_row, depth);
}

// c[rows, columns] += a[rows, depth] b[depth, columns]; columns is a multiple of LANES.
void multiply(const float* a, int64_t a_row, const float* b, int64_t b_row, float* c, int64_t c_row, int rows, int depth,
              int columns) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) multiply_rows<4>(a + r * a_row, a_row, b, b_row, c + r * c_row, c_row, depth, columns);
  for (; r + 2 <= rows; r += 2) multiply_rows<2>(a + r * a_row, a_row, b, b_row, c + r * c_row, c_row, depth, columns);
  for (; r < rows; ++r) multiply_rows<1>(a + r * a_row, a_row, b, b_row, c + r * c_row, c_row, depth, columns);
}

template <class E>
const E* page_of(const Batch& b, int request, int head, int64_t position) {
  const int64_t page = b.tables[request * b.table_width + position / b.page_tokens];
  return static_cast<const E*>(b.pages) + page * b.page_stride + head * b.page_head +
         position % b.page_tokens * b.head_dim;
}

inline void prefetch(const void* from, size_t bytes) {
  for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(static_cast<const char*>(from) + line);
}

// Loads keys and values of positions first + begin ... first + end - 1 of one head into rows begin ... end - 1. Asks for
// the next page's rows meanwhile, before position `limit`: pages are too short for the processor to foresee.
template <class E>
void load_chunk(const Batch& b, int request, int head, int64_t first, int begin, int end, int64_t limit, Scratch& s) {
  const int depth = b.head_dim, width = s.width;
  for (int j = begin; j < end;) {
    const int run = std::min<int64_t>(end - j, b.page_tokens - (first + j) % b.page_tokens);
    const E* key = page_of<E>(b, request, head, first + j);
    const E* next = first + j + run < limit ? page_of<E>(b, request, head, first + j + run) : key;
    for (const int stop = j + run; j < stop; ++j, key += depth, next += depth) {
      prefetch(next, depth * sizeof(E));
      prefetch(next + b.value_offset, depth * sizeof(E));
      widen(key, s.keys + j * width, depth);
      widen(key + b.value_offset, s.values + j * width, depth);
    }
  }
}

// Swaps, between the registers whose index has bit B and those without, the lanes where register and lane disagree.
template <int B>
inline void exchange(Lanes (&block)[LANES]) {
  LaneInts low{}, high{};  // indexes into the concatenation of two registers
  for (int l = 0; l < LANES; ++l) {
    low[l] = l & B ? LANES + (l ^ B) : l;
    high[l] = l & B ? LANES + l : l ^ B;
  }
#pragma GCC unroll 16
  for (int r = 0; r < LANES; ++r)
    if (!(r & B)) {
      const Lanes a = block[r], b = block[r | B];
      block[r] = __builtin_shuffle(a, b, low);
      block[r | B] = __builtin_shuffle(a, b, high);
    }
}

// Keys of a chunk from rows [CHUNK, width] to columns [width, CHUNK], square blocks of LANES at a time.
void transpose_keys(int count, Scratch& s) {
  for (int j = 0; j < count; j += LANES)
    for (int d = 0; d < s.width; d += LANES) {
      Lanes block[LANES];
#pragma GCC unroll 16
      for (int r = 0; r < LANES; ++r) block[r] = lanes(s.keys + (j + r) * s.width + d);
      exchange<1>(block);
      exchange<2>(block);
      exchange<4>(block);
      if constexpr (LANES == 16) exchange<8>(block);
#pragma GCC unroll 16
      for (int r = 0; r < LANES; ++r) lanes(s.columns + (d + r) * CHUNK + j) = block[r];
    }
}

// Turns one row's scores of a chunk into weights; keys outside [begin, end) count nothing. Rescales the row's sums.
void weigh_row(const Batch& b, int row, int begin, int end, Scratch& s) {
  float* p = s.scores + size_t(row) * CHUNK;
  if (begin >= end) {
    std::fill_n(p, CHUNK, 0.0f);
    return;
  }
  std::fill_n(p, begin, MASKED);
  std::fill_n(p + end, CHUNK - end, MASKED);
  if (b.softcap > 0)
    for (int j = begin; j < end; ++j) p[j] = b.softcap * std::tanh(p[j] / b.softcap);
  Lanes peaks = lanes(p);
  for (int j = LANES; j < CHUNK; j += LANES) peaks = larger(peaks, lanes(p + j));
  const float peak = std::max(s.peak[row], maximum(peaks)), shrink = std::exp(s.peak[row] - peak);
  Lanes sums{};
  for (int j = 0; j < CHUNK; j += LANES) {
    const Lanes score = lanes(p + j);
    const Lanes weight = score > MASKED ? exponential(score - peak) : Lanes{};
    lanes(p + j) = weight;
    sums += weight;
  }
  s.peak[row] = peak;
  s.sum[row] = s.sum[row] * shrink + total(sums);
  if (shrink != 1.0f)
    for (int d = 0; d < s.width; d += LANES) lanes(s.out + row * s.width + d) *= shrink;
}

// `count` query rows of one request from row `first`, for the query heads that share key/value head `head`.
template <class E>
void attend_tile(const Batch& b, int request, int head, int first, int count, Scratch& s) {
  const int group = b.q_heads / b.kv_heads, rows = count * group;
  const int64_t position = b.contexts[request] + first - b.query_starts[request];
  const auto visible_from = [&](int64_t at) { return b.window ? std::max<int64_t>(0, at - b.window + 1) : 0; };
  for (int r = 0; r < rows; ++r) {
    const int h = head * group + r % group;
    const E* q = static_cast<const E*>(b.q) + (first + r / group) * b.q_row + h * b.q_head;
    for (int d = 0; d < b.head_dim; ++d) s.q[r * s.width + d] = load(q[d]) * b.scale;
    s.peak[r] = b.sinks ? b.sinks[h] : MASKED;
    s.sum[r] = b.sinks ? 1.0f : 0.0f;
  }
  std::fill_n(s.out, size_t(rows) * s.width, 0.0f);
  const int64_t limit = position + count;
  for (int64_t chunk = visible_from(position) / CHUNK * CHUNK; chunk < limit; chunk += CHUNK) {
    const int begin = int(std::max<int64_t>(0, visible_from(position) - chunk));
    const int end = int(std::min<int64_t>(CHUNK, limit - chunk));
    load_chunk<E>(b, request, head, chunk, begin, end, limit, s);
    transpose_keys(end, s);
    std::fill_n(s.scores, size_t(rows) * CHUNK, 0.0f);
    multiply(s.q, s.width, s.columns, CHUNK, s.scores, CHUNK, rows, b.head_dim, (end + LANES - 1) / LANES * LANES);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = position + r / group;
      weigh_row(b, r, int(std::max<int64_t>(0, visible_from(at) - chunk)), int(std::min<int64_t>(end, at + 1 - chunk)), s);
    }
    multiply(s.scores + begin, CHUNK, s.values + begin * s.width, s.width, s.out, s.width, rows, end - begin, s.width);
  }
  for (int r = 0; r < rows; ++r) {
    E* out = static_cast<E*>(b.out) + (int64_t(first + r / group) * b.q_heads + head * group + r % group) * b.head_dim;
    const float scale = 1.0f / s.sum[r];
    for (int d = 0; d < b.head_dim; ++d) store(out[d], s.out[r * s.width + d] * scale);
  }
}

template <class E>
void write_pages(const Batch& b, int request) {
  for (int row = b.query_starts[request]; row < b.query_starts[request + 1]; ++row)
    for (int head = 0; head < b.kv_heads; ++head) {
      E* to = const_cast<E*>(page_of<E>(b, request, head, b.contexts[request] + row - b.query_starts[request]));
      const size_t bytes = size_t(b.head_dim) * sizeof(E);
      std::memcpy(to, static_cast<const E*>(b.k) + row * b.k_row + head * b.k_head, bytes);
      std::memcpy(to + b.value_offset, static_cast<const E*>(b.v) + row * b.v_row + head * b.v_head, bytes);
    }
}

template <class E>
void run(const Batch& b) {
  const int tile = std::max(1, ROWS_MAX / (b.q_heads / b.kv_heads));
  for (int request = 0; request < b.requests; ++request) write_pages<E>(b, request);
#pragma omp parallel num_threads(b.threads) if (b.threads > 1)
  {
    Scratch scratch(b.head_dim);
    for (int request = 0; request < b.requests; ++request) {
      const int begin = b.query_starts[request], end = b.query_starts[request + 1];
      const int tiles = (end - begin + tile - 1) / tile;
#pragma omp for schedule(dynamic, 1) nowait
      for (int item = 0; item < tiles * b.kv_heads; ++item) {
        const int first = begin + item / b.kv_heads * tile;
        attend_tile<E>(b, request, item % b.kv_heads, first, std::min(tile, end - first), scratch);
      }
    }
  }
}

}  // namespace

extern "C" void tercet_paged_attention_f32(const Batch* batch) { run<float>(*batch); }
extern "C" void tercet_paged_attention_bf16(const Batch* batch) { run<bf16>(*batch); }
