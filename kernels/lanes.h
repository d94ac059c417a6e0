// Registers of floats, and the element types that kernels read and write. Included by every kernel of this folder.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;  // floats a vector register
constexpr int TILE_COLUMNS = 4;  // registers that one row of a product may hold beside those of five others
#else
constexpr int LANES = 8;
constexpr int TILE_COLUMNS = 2;
#endif

using bf16 = uint16_t;

inline float load(float x) { return x; }
inline float load(bf16 x) {
  const uint32_t bits = uint32_t(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline void store(float& to, float x) { to = x; }
inline void store(bf16& to, float x) {  // round to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  to = x == x ? bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : bf16(0x7fc0);  // a NaN must not round to a number
}

// A register of LANES floats.
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t LaneInts __attribute__((vector_size(4 * LANES)));

inline Lanes& lanes(float* at) { return *reinterpret_cast<Lanes*>(at); }
inline const Lanes& lanes(const float* at) { return *reinterpret_cast<const Lanes*>(at); }

// The lanes with their index bit `B` flipped: log2(LANES) of these fold a register.
template <int B>
inline Lanes flipped(Lanes v) {
  LaneInts index{};
  for (int l = 0; l < LANES; ++l) index[l] = l ^ B;
  return __builtin_shuffle(v, index);
}
template <int B = LANES / 2>
inline float total(Lanes v) {
  if constexpr (B == 0) return v[0];
  else return total<B / 2>(v + flipped<B>(v));
}
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }
template <int B = LANES / 2>
inline float maximum(Lanes v) {
  if constexpr (B == 0) return v[0];
  else return maximum<B / 2>(larger(v, flipped<B>(v)));
}

// e^x for x <= 0, relative error below 2e-7; expf would be called once a lane.
inline Lanes exponential(Lanes x) {
  x = x > -87.0f ? x : Lanes{} - 87.0f;
  const LaneInts whole = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, LaneInts);
  const Lanes n = __builtin_convertvector(whole, Lanes);
  const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Lanes y = Lanes{} + 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  return y * (Lanes)((whole + 127) << 23);
}

// Copies a row to fp32. The tail behind the head dim is never written and stays zero.
inline void widen(const float* from, float* to, int depth) {
  int d = 0;
  for (; d + LANES <= depth; d += LANES) lanes(to + d) = lanes(from + d);
  for (; d < depth; ++d) to[d] = from[d];
}
inline void widen(const bf16* from, float* to, int depth) {
  typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
  int d = 0;
  for (; d + LANES <= depth; d += LANES) {
    const Halves packed = *reinterpret_cast<const Halves*>(from + d);
    lanes(to + d) = (Lanes)(__builtin_convertvector(packed, LaneInts) << 16);
  }
  for (; d < depth; ++d) to[d] = load(from[d]);
}

// Stores a register; each lane as `store` would.
inline void narrow(Lanes x, float* to) { lanes(to) = x; }
inline void narrow(Lanes x, bf16* to) {
  typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
  typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
  const Words bits = (Words)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words whole = x == x ? rounded : Words{} + 0x7fc0;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(whole, Halves);
}

}  // namespace
