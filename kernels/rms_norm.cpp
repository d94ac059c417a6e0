// Root-mean-square norm: out = x / sqrt(mean(x^2) + eps) * scale, row by row, computed in fp32. If there is `more`, it is
// added to x before, which is rounded as it is stored.

#include <cmath>

#include "lanes.h"

namespace {

constexpr int64_t ROWS_TO_SHARE = 32;  // fewer are done before another thread has woken up

template <class E>
void norm_row(const E* x, const float* scale, E* out, int64_t depth, float eps) {
  const int64_t whole = depth / LANES * LANES;
  Lanes squares{}, piece;
  float sum = 0;
  for (int64_t d = 0; d < whole; d += LANES) {
    widen(x + d, reinterpret_cast<float*>(&piece), LANES);
    squares += piece * piece;
  }
  for (int64_t d = whole; d < depth; ++d) sum += load(x[d]) * load(x[d]);
  const float factor = 1.0f / std::sqrt((sum + total(squares)) / float(depth) + eps);
  for (int64_t d = 0; d < whole; d += LANES) {
    widen(x + d, reinterpret_cast<float*>(&piece), LANES);
    narrow(piece * (factor * lanes(scale + d)), out + d);
  }
  for (int64_t d = whole; d < depth; ++d) store(out[d], load(x[d]) * factor * scale[d]);
}

template <class E>
void add_row(E* x, const E* more, int64_t depth) {
  Lanes a, b;
  int64_t d = 0;
  for (; d + LANES <= depth; d += LANES) {
    widen(x + d, reinterpret_cast<float*>(&a), LANES);
    widen(more + d, reinterpret_cast<float*>(&b), LANES);
    narrow(a + b, x + d);
  }
  for (; d < depth; ++d) store(x[d], load(x[d]) + load(more[d]));
}

template <class E>
void run(E* x, const E* more, const float* scale, E* out, int64_t rows, int64_t depth, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows >= ROWS_TO_SHARE)
  for (int64_t row = 0; row < rows; ++row) {
    if (more) add_row(x + row * depth, more + row * depth, depth);
    norm_row(x + row * depth, scale, out + row * depth, depth, eps);
  }
}

}  // namespace

extern "C" void tercet_rms_norm_f32(void* x, const void* more, const float* scale, void* out, int64_t rows, int64_t depth,
                                    float eps, int threads) {
  run(static_cast<float*>(x), static_cast<const float*>(more), scale, static_cast<float*>(out), rows, depth, eps, threads);
}
extern "C" void tercet_rms_norm_bf16(void* x, const void* more, const float* scale, void* out, int64_t rows, int64_t depth,
                                     float eps, int threads) {
  run(static_cast<bf16*>(x), static_cast<const bf16*>(more), scale, static_cast<bf16*>(out), rows, depth, eps, threads);
}
