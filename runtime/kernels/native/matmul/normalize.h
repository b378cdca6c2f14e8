/* RMS norm of a row of x, before it is quantized. A file defines TARGET and INLINE before it includes this; the compiler
 * vectorizes the loops. The order of operations is the same for all instruction sets. */
#ifndef INTAGLIO_NORMALIZE_H
#define INTAGLIO_NORMALIZE_H

#include <math.h>
#include <string.h>

enum { PARTIAL_SUMS = 32 };

TARGET static void normalize(const float *x, const float *skip, const float *weight, float epsilon, int64_t k,
                             float *sum, float *to) {
  if (skip != NULL) {
    for (int64_t i = 0; i < k; i++) to[i] = x[i] + skip[i];
    if (sum != NULL) memcpy(sum, to, k * sizeof(float));
    x = to;
  }
  float squares[PARTIAL_SUMS] = {0};
  int64_t at = 0;
  for (; at + PARTIAL_SUMS <= k; at += PARTIAL_SUMS)
    for (int i = 0; i < PARTIAL_SUMS; i++) squares[i] = fmaf(x[at + i], x[at + i], squares[i]);
  for (; at < k; at++) squares[at % PARTIAL_SUMS] = fmaf(x[at], x[at], squares[at % PARTIAL_SUMS]);
  for (int half = PARTIAL_SUMS / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) squares[i] += squares[i + half];
  const float inverse = 1.0f / sqrtf(squares[0] / (float)k + epsilon);
  for (int64_t i = 0; i < k; i++) to[i] = x[i] * inverse * weight[i];
}

#endif
