/* How a KV cache holds a row, the key or value of one token and head: E float32; or E int8 and one float32 behind them,
 * the unit that they are multiples of, so that a row depends on no other.
 */
#ifndef INTAGLIO_ATTENTION_CACHE_H
#define INTAGLIO_ATTENTION_CACHE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { UNIT_BYTES = sizeof(float) };

static inline int64_t cache_row_bytes(int64_t size, int int8) {
  return int8 ? size + UNIT_BYTES : size * (int64_t)sizeof(float);
}

/* A row of int8. The unit is NaN where an element is no finite number. */
static inline void store_int8_row(const float *from, int64_t size, char *to) {
  float largest = 0.0f;
  for (int64_t e = 0; e < size; e++) {
    const float one = fabsf(from[e]);
    largest = one <= FLT_MAX ? (one > largest ? one : largest) : NAN;
    if (largest != largest) break;
  }
  const float unit = largest / 127.0f, inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  for (int64_t e = 0; e < size; e++) {
    /* Added to 1.5 * 2^23, a number is rounded to a whole one, to even in the middle. */
    const float rounded = from[e] * inverse + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    to[e] = (char)(bits & 0xFF);
  }
  memcpy(to + size, &unit, UNIT_BYTES);
}

#endif
