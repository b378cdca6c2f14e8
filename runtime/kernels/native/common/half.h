/* Conversions between float32 and float16, IEEE 754's binary16. */
#ifndef INTAGLIO_HALF_H
#define INTAGLIO_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Return the same number, which float32 always represents. */
static inline float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, rest = half & 1023;
  const float tiny = (float)rest * 0x1p-24f; /* a subnormal number */
  uint32_t bits;
  memcpy(&bits, &tiny, sizeof bits);
  if (exponent != 0) bits = (exponent == 31 ? 255u : exponent + 112) << 23 | rest << 13;
  bits |= sign;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* Return whether a finite float16 represents this number exactly: 11 significant bits, none of them below 2^-24. */
static inline int is_exact_half(float number) {
  const float size = fabsf(number);
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  if (size < 0x1p-14f) return size * 0x1p24f == (float)(uint32_t)(size * 0x1p24f);
  return size < 0x1p16f && (bits & 0x1FFF) == 0;
}

/* Return the float16 that represents this number exactly. */
static inline uint16_t float_to_half(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  const float size = fabsf(number);
  if (size < 0x1p-14f) return (uint16_t)(sign | (uint32_t)(size * 0x1p24f));
  return (uint16_t)(sign | (((bits & 0x7FFFFFFF) - (112u << 23)) >> 13));
}

#endif
