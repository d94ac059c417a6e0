// KV blocks to one byte an element and back. A group (one layer's keys or values of one head in one block) has one scale.
//
// Packed block: `groups` fp32 scales, then `groups` x `elements` codes. int8: value = scale * code, scale = largest / 127.
// fp8: value = scale * e4m3(code), scale = largest / 448; e4m3 has 4 exponent bits of bias 7, 3 mantissa bits, no infinity.

#include "lanes.h"

namespace {

constexpr int64_t TILE = 16 * LANES;
constexpr float TINY = 1e-30f;         // a group smaller than this is all zeros: the inverse of its scale would overflow
constexpr float ROUND = 12582912.0f;   // 1.5 * 2^23: adding it rounds to an integer, ties to even, in the low mantissa bits
enum Codes : int32_t { INT8 = 0, FP8 = 1 };

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline uint8_t encode_int8(float y) {
  const float clamped = std::min(std::max(y, -127.0f), 127.0f);
  return uint8_t(bits_of(clamped + ROUND));
}
inline float decode_int8(uint8_t code) { return float(int8_t(code)); }

inline uint8_t encode_fp8(float y) {
  const uint32_t sign = (bits_of(y) >> 24) & 0x80;
  const float size = std::min(float_of(bits_of(y) & 0x7fffffff), 448.0f);
  const uint32_t bits = bits_of(size);
  const uint32_t normal = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - (120 << 3);
  const uint32_t subnormal = bits_of(size * 512.0f + ROUND) & 0xff;  // below 2^-6 codes count multiples of 2^-9
  return uint8_t(sign | (size < 0.015625f ? subnormal : normal));
}
inline float decode_fp8(uint8_t code) {
  const uint32_t size = code & 0x7f;
  const float normal = float_of((size << 20) + (120u << 23));
  const float subnormal = float(int32_t(size)) * 0.001953125f;
  return float_of(bits_of(size < 8 ? subnormal : normal) | (uint32_t(code & 0x80) << 24));
}

template <class E>
float largest(const E* x, int64_t elements) {
  const int64_t whole = elements / LANES * LANES;
  Lanes most{}, piece;
  for (int64_t e = 0; e < whole; e += LANES) {
    widen(x + e, reinterpret_cast<float*>(&piece), LANES);
    most = larger(most, (Lanes)((LaneInts)piece & 0x7fffffff));
  }
  float found = maximum(most);
  for (int64_t e = whole; e < elements; ++e) found = std::max(found, float_of(bits_of(load(x[e])) & 0x7fffffff));
  return found;
}

template <class E, uint8_t (*encode)(float)>
void pack_group(const E* x, float inverse, uint8_t* to, int64_t elements) {
  float tile[TILE];
  for (int64_t e = 0; e < elements; e += TILE) {
    const int64_t count = std::min(TILE, elements - e);
    widen(x + e, tile, int(count));
    for (int64_t i = 0; i < count; ++i) to[e + i] = encode(tile[i] * inverse);
  }
}

template <class E, float (*decode)(uint8_t)>
void unpack_group(const uint8_t* from, float scale, E* x, int64_t elements) {
  for (int64_t e = 0; e < elements; ++e) store(x[e], decode(from[e]) * scale);
}

struct Shape {
  int64_t blocks, groups, elements, packed_stride;
};

template <class E>
void pack(const E* pages, const int64_t* ids, uint8_t* packed, Shape shape, Codes codes) {
  const float limit = codes == INT8 ? 1.0f / 127.0f : 1.0f / 448.0f;
  for (int64_t n = 0; n < shape.blocks; ++n, packed += shape.packed_stride) {
    const E* x = pages + ids[n] * shape.groups * shape.elements;
    uint8_t* to = packed + 4 * shape.groups;
    for (int64_t g = 0; g < shape.groups; ++g, x += shape.elements, to += shape.elements) {
      const float most = largest(x, shape.elements);
      const float scale = most > TINY ? most * limit : 0.0f;
      const float inverse = most > TINY ? 1.0f / scale : 0.0f;
      std::memcpy(packed + 4 * g, &scale, 4);
      if (codes == INT8) pack_group<E, encode_int8>(x, inverse, to, shape.elements);
      else pack_group<E, encode_fp8>(x, inverse, to, shape.elements);
    }
  }
}

template <class E>
void unpack(E* pages, const int64_t* ids, const uint8_t* packed, Shape shape, Codes codes) {
  for (int64_t n = 0; n < shape.blocks; ++n, packed += shape.packed_stride) {
    E* x = pages + ids[n] * shape.groups * shape.elements;
    const uint8_t* from = packed + 4 * shape.groups;
    for (int64_t g = 0; g < shape.groups; ++g, x += shape.elements, from += shape.elements) {
      float scale;
      std::memcpy(&scale, packed + 4 * g, 4);
      if (codes == INT8) unpack_group<E, decode_int8>(from, scale, x, shape.elements);
      else unpack_group<E, decode_fp8>(from, scale, x, shape.elements);
    }
  }
}

}  // namespace

#define TERCET_KV_CODEC(NAME, E)                                                                                          \
  extern "C" void tercet_kv_pack_##NAME(void* pages, const int64_t* ids, void* packed, int64_t blocks, int64_t groups,    \
                                        int64_t elements, int64_t packed_stride, int32_t codes) {                         \
    pack(static_cast<const E*>(pages), ids, static_cast<uint8_t*>(packed), {blocks, groups, elements, packed_stride},     \
         Codes(codes));                                                                                                   \
  }                                                                                                                       \
  extern "C" void tercet_kv_unpack_##NAME(void* pages, const int64_t* ids, void* packed, int64_t blocks, int64_t groups,  \
                                          int64_t elements, int64_t packed_stride, int32_t codes) {                       \
    unpack(static_cast<E*>(pages), ids, static_cast<const uint8_t*>(packed), {blocks, groups, elements, packed_stride},   \
           Codes(codes));                                                                                                 \
  }
TERCET_KV_CODEC(f32, float)
TERCET_KV_CODEC(bf16, bf16)
