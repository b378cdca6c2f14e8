/* Vector functions of attention in decode and in prefill, for the instruction set of the file that includes this. */
#ifndef INTAGLIO_ATTENTION_VECTORS_H
#define INTAGLIO_ATTENTION_VECTORS_H

#include <math.h>
#include <string.h>

#include "attention/cache.h"
#include "attention/query_tile.h"
#include "common/memory.h"

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Return the running maximum, or 0 where no key was seen yet and it is -inf. */
INLINE Vector finite_or_zero(Vector maximum) {
  return vector_select(vector_at_most(maximum, vector_of(-INFINITY)), vector_zero(), maximum);
}

/* Return `count` rows of a KV cache from row `first` on as float32, [count, E]: in place, or converted in `memory`. */
INLINE const float *load_floats(const char *cache, const QueryTile *queries, int64_t first, int64_t count,
                                float *memory) {
  const char *row = cache + first * cache_row_bytes(queries->size, queries->int8);
  if (!queries->int8) return (const float *)row;
  for (int64_t i = 0; i < count; i++, row += cache_row_bytes(queries->size, 1)) {
    float scale;
    memcpy(&scale, row + queries->size, SCALE_BYTES);
    for (int64_t e = 0; e < queries->size; e += WIDTH) {
      const Vector whole = vector_from_int8((const int8_t *)row + e);
      vector_store(memory + i * queries->size + e, vector_multiply(whole, vector_of(scale)));
    }
  }
  return memory;
}

/* Load WIDTH rows of WIDTH floats, of which `count` exist and the others are 0, transposed. */
INLINE void load_transposed(Vector r[WIDTH], const float *const *rows, int64_t at, int count) {
  if (count >= WIDTH) {
    UNROLL for (int i = 0; i < WIDTH; i++) r[i] = vector_load(rows[i] + at);
  } else {
    UNROLL for (int i = 0; i < WIDTH; i++) r[i] = i < count ? vector_load(rows[i] + at) : vector_zero();
  }
  vector_transpose(r);
}

#endif
