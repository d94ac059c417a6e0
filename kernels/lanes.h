// Registers of floats, and the element types that kernels read and write. Included by every kernel of this folder.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int LANES = 16;  // floats a vector register

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

// A register of LANES floats; the compiler splits it where registers are narrower.
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t LaneInts __attribute__((vector_size(4 * LANES)));

inline Lanes& lanes(float* at) { return *reinterpret_cast<Lanes*>(at); }
inline const Lanes& lanes(const float* at) { return *reinterpret_cast<const Lanes*>(at); }

// The lanes with their index bit `B` flipped: four of these fold a register in four steps instead of sixteen.
template <int B>
inline Lanes flipped(Lanes v) {
  return __builtin_shuffle(v, LaneInts{0 ^ B, 1 ^ B, 2 ^ B, 3 ^ B, 4 ^ B, 5 ^ B, 6 ^ B, 7 ^ B, 8 ^ B, 9 ^ B, 10 ^ B,
                                       11 ^ B, 12 ^ B, 13 ^ B, 14 ^ B, 15 ^ B});
}
inline float total(Lanes v) {
  v += flipped<8>(v);
  v += flipped<4>(v);
  v += flipped<2>(v);
  return v[0] + v[1];
}
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }
inline float maximum(Lanes v) {
  v = larger(v, flipped<8>(v));
  v = larger(v, flipped<4>(v));
  v = larger(v, flipped<2>(v));
  return std::max(v[0], v[1]);
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

}  // namespace
