// Root-mean-square norm: out = x / sqrt(mean(x^2) + eps) * scale, row by row, computed in fp32.

#include <cmath>

#include "lanes.h"

namespace {

template <class E>
void run(const E* x, const float* scale, E* out, int64_t rows, int64_t depth, float eps) {
  const int64_t whole = depth / LANES * LANES;
  for (const E* end = x + rows * depth; x != end; x += depth, out += depth) {
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
      piece *= factor * lanes(scale + d);
      for (int l = 0; l < LANES; ++l) store(out[d + l], piece[l]);
    }
    for (int64_t d = whole; d < depth; ++d) store(out[d], load(x[d]) * factor * scale[d]);
  }
}

}  // namespace

extern "C" void tercet_rms_norm_f32(const void* x, const float* scale, void* out, int64_t rows, int64_t depth, float eps) {
  run(static_cast<const float*>(x), scale, static_cast<float*>(out), rows, depth, eps);
}
extern "C" void tercet_rms_norm_bf16(const void* x, const float* scale, void* out, int64_t rows, int64_t depth, float eps) {
  run(static_cast<const bf16*>(x), scale, static_cast<bf16*>(out), rows, depth, eps);
}
