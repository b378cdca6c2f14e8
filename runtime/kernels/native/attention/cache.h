/* Rows of a KV cache. A row is the key or the value of one token and head: E float32; or E int8 followed by their float32
 * scale, so that a row depends on no other row.
 */
#ifndef INTAGLIO_ATTENTION_CACHE_H
#define INTAGLIO_ATTENTION_CACHE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SCALE_BYTES = sizeof(float) };

static inline int64_t cache_row_bytes(int64_t size, int int8) {
  return int8 ? size + SCALE_BYTES : size * (int64_t)sizeof(float);
}

/* Write a row of int8. The scale is NaN if an element is not finite. */
static inline void store_int8_row(const float *from, int64_t size, char *to) {
  float largest = 0.0f;
  for (int64_t e = 0; e < size; e++) {
    const float one = fabsf(from[e]);
    largest = one <= FLT_MAX ? (one > largest ? one : largest) : NAN;
    if (largest != largest) break;
  }
  const float scale = largest / 127.0f, inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  for (int64_t e = 0; e < size; e++) {
    /* Adding 1.5 * 2^23 rounds a number to an integer, half to even, which is then in the lowest bits. */
    const float rounded = from[e] * inverse + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    to[e] = (char)(bits & 0xFF);
  }
  memcpy(to + size, &scale, SCALE_BYTES);
}

#endif
