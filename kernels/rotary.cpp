// Rotary positions, in place, on the heads of a row: feature f of a head turns with feature f + pairs, by the angle of the
// row's position. Where there are scales, heads go through a root-mean-square norm before. Computed in fp32, rounded once.

#include <cmath>

#include "lanes.h"

namespace {

constexpr int HEAD_DIM_MAX = 256;
constexpr int64_t ROWS_TO_SHARE = 16;  // fewer are done before another thread has woken up

}  // namespace

struct Heads {  // mirrored in rotary.py, field by field
  const float *cos_sin;  // [positions, 2 pairs]: cosines, then sines
  const float *q_scale, *k_scale;  // [dim] each, or null
  int64_t row;  // from one row to the next, in elements
  int32_t q_heads, k_heads, dim, pairs, threads;
  float eps;
};

namespace {

void norm(float* x, const float* scale, int dim, float eps) {
  const int whole = dim / LANES * LANES;
  Lanes squares{};
  float sum = 0;
  for (int d = 0; d < whole; d += LANES) squares += lanes(x + d) * lanes(x + d);
  for (int d = whole; d < dim; ++d) sum += x[d] * x[d];
  const float factor = 1.0f / std::sqrt((sum + total(squares)) / float(dim) + eps);
  for (int d = 0; d < dim; ++d) x[d] *= factor * scale[d];
}

template <class E>
void turn_head(E* x, const float* scale, const float* cos_sin, const Heads& h) {
  float in[HEAD_DIM_MAX], out[HEAD_DIM_MAX];
  widen(x, in, h.dim);
  if (scale) norm(in, scale, h.dim, h.eps);
  const float *cos = cos_sin, *sin = cos_sin + h.pairs, *partner = in + h.pairs;
  float* turned = out + h.pairs;
  int f = 0;
  for (; f + LANES <= h.pairs; f += LANES) {
    const Lanes a = lanes(in + f), b = lanes(partner + f), c = lanes(cos + f), s = lanes(sin + f);
    lanes(out + f) = a * c - b * s;
    lanes(turned + f) = b * c + a * s;
  }
  for (; f < h.pairs; ++f) {
    out[f] = in[f] * cos[f] - partner[f] * sin[f];
    turned[f] = partner[f] * cos[f] + in[f] * sin[f];
  }
  std::copy(in + 2 * h.pairs, in + h.dim, out + 2 * h.pairs);
  int d = 0;
  for (; d + LANES <= h.dim; d += LANES) narrow(lanes(out + d), x + d);
  for (; d < h.dim; ++d) store(x[d], out[d]);
}

template <class E>
void run(E* x, const int32_t* positions, int64_t rows, const Heads& h) {
#pragma omp parallel for num_threads(h.threads) if (h.threads > 1 && rows >= ROWS_TO_SHARE)
  for (int64_t n = 0; n < rows; ++n) {
    const float* cos_sin = h.cos_sin + int64_t(positions[n]) * 2 * h.pairs;
    for (int head = 0; head < h.q_heads + h.k_heads; ++head)
      turn_head(x + n * h.row + int64_t(head) * h.dim, head < h.q_heads ? h.q_scale : h.k_scale, cos_sin, h);
  }
}

}  // namespace

extern "C" void tercet_rotary_f32(void* x, const int32_t* positions, int64_t rows, const Heads* heads) {
  run(static_cast<float*>(x), positions, rows, *heads);
}
extern "C" void tercet_rotary_bf16(void* x, const int32_t* positions, int64_t rows, const Heads* heads) {
  run(static_cast<bf16*>(x), positions, rows, *heads);
}
