/* A KV cache that keeps a window.
 *
 * It has C rows, at least the W of the window. When a token finds it full, the C - W + 1 oldest are dropped at once, and the
 * others are moved to its beginning; so it always has the last W, oldest first.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.GroupQueryAttention, sliding_window_cache: after T tokens
 * there are L(T) = T rows if T <= C, and T - G * ceil((T - C) / G) with G = C - W + 1 otherwise.
 */
#ifndef INTAGLIO_ATTENTION_SLIDING_H
#define INTAGLIO_ATTENTION_SLIDING_H

#include <stdint.h>

/* Return the position of the first row after `total` tokens. */
static inline int64_t first_kept(int64_t total, int64_t window, int64_t capacity) {
  const int64_t dropped = capacity - window + 1;
  return total <= capacity ? 0 : (total - capacity + dropped - 1) / dropped * dropped;
}

#endif
