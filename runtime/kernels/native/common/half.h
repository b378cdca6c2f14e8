/* Numbers of half precision, IEEE 754's binary16, and the floats that they are. */
#ifndef INTAGLIO_HALF_H
#define INTAGLIO_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The same number, which a float always is. */
static inline float from_half(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, rest = half & 1023;
  const float tiny = (float)rest * 0x1p-24f; /* what it stands for without an exponent */
  uint32_t bits;
  memcpy(&bits, &tiny, sizeof bits);
  if (exponent != 0) bits = (exponent == 31 ? 255u : exponent + 112) << 23 | rest << 13;
  bits |= sign;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* Whether there is a finite half that is this number: no more than 11 significant bits, and none below 2^-24. */
static inline int is_half(float number) {
  const float size = fabsf(number);
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  if (size < 0x1p-14f) return size * 0x1p24f == (float)(uint32_t)(size * 0x1p24f);
  return size < 0x1p16f && (bits & 0x1FFF) == 0;
}

/* The half that is this number: its exponent and fraction move, and a number below the normal ones has none of its leading
 * 1s written. */
static inline uint16_t to_half(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  const float size = fabsf(number);
  if (size < 0x1p-14f) return (uint16_t)(sign | (uint32_t)(size * 0x1p24f));
  return (uint16_t)(sign | (((bits & 0x7FFFFFFF) - (112u << 23)) >> 13));
}

#endif
