// Activations, element by element, computed in fp32: silu(x) = x s(x) and gelu(x) = x s(2 c (x + 0.044715 x^3)), with
// s(x) = 1 / (1 + e^-x) and c = sqrt(2 / pi), which is the form of GELU that has a tanh in it. With `up`, out = act(x) up: the gate
// of a feed-forward layer, rounded once.
//
// The rest of a row goes through the same instructions as whole registers, so an element's result depends on it alone: not
// on where it stands, how many rows there are or which thread computes them.

#include "lanes.h"

namespace {

enum Form { SILU = 0, GELU_TANH = 1 };

constexpr int64_t ELEMENTS_TO_SHARE = 8192;  // fewer are done before another thread has woken up

inline Lanes sigmoid(Lanes x) {
  const Lanes small = exponential(x < 0.0f ? x : -x);
  return (x < 0.0f ? small : Lanes{} + 1.0f) / (small + 1.0f);
}

template <Form F>
inline Lanes activate(Lanes x) {
  if constexpr (F == SILU) return x * sigmoid(x);
  else return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
}

// act(x) of so many elements, times `up` if there is one.
template <Form F, class E>
inline Lanes activated(const E* x, const E* up, int count) {
  float piece[LANES] = {}, other[LANES] = {};
  widen(x, piece, count);
  if (!up) return activate<F>(lanes(piece));
  widen(up, other, count);
  return activate<F>(lanes(piece)) * lanes(other);
}

template <Form F, class E>
void activate_row(const E* x, const E* up, E* out, int64_t depth) {
  int64_t d = 0;
  for (; d + LANES <= depth; d += LANES) narrow(activated<F>(x + d, up ? up + d : nullptr, LANES), out + d);
  if (d == depth) return;
  const Lanes rest = activated<F>(x + d, up ? up + d : nullptr, int(depth - d));
  for (int l = 0; d < depth; ++d, ++l) store(out[d], rest[l]);
}

template <class E>
void run(const E* x, const E* up, int64_t x_row, E* out, int64_t rows, int64_t depth, int form, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * depth >= ELEMENTS_TO_SHARE)
  for (int64_t row = 0; row < rows; ++row) {
    const E *from = x + row * x_row, *times = up ? up + row * x_row : nullptr;
    form == SILU ? activate_row<SILU>(from, times, out + row * depth, depth) : activate_row<GELU_TANH>(from, times, out + row * depth, depth);
  }
}

}  // namespace

extern "C" void tercet_activation_f32(const void* x, const void* up, int64_t x_row, void* out, int64_t rows, int64_t depth,
                                      int form, int threads) {
  run(static_cast<const float*>(x), static_cast<const float*>(up), x_row, static_cast<float*>(out), rows, depth, form, threads);
}
extern "C" void tercet_activation_bf16(const void* x, const void* up, int64_t x_row, void* out, int64_t rows, int64_t depth,
                                       int form, int threads) {
  run(static_cast<const bf16*>(x), static_cast<const bf16*>(up), x_row, static_cast<bf16*>(out), rows, depth, form, threads);
}
