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

/* Return the first and the last of a block's keys that the queries of a vector see, which starts at query `row`. */
INLINE void seen_keys(const int64_t *positions, int64_t count, int64_t window, int64_t row, int64_t first,
                      Vector *begin, Vector *end) {
  float begins[WIDTH], ends[WIDTH];
  for (int lane = 0; lane < WIDTH; lane++) {
    const int64_t last = positions[smaller(row + lane, count - 1)] - first;
    ends[lane] = (float)smaller(last, KEY_BLOCK);
    begins[lane] = window > 0 ? (float)larger(last - window + 1, 0) : 0.0f;
  }
  *begin = vector_load(begins);
  *end = vector_load(ends);
}

/* Return the score of a key of the block, or -inf where a query does not see it. */
INLINE Vector mask_score(Vector score, Vector begin, Vector end, int64_t key) {
  const Vector at = vector_of((float)key);
  const Mask seen = mask_and(vector_at_most(begin, at), vector_at_most(at, end));
  return vector_select(seen, score, vector_of(-INFINITY));
}

/* Write the outputs of a long tile, sums / totals. The sums of an element are `by_element` floats apart, and those of a vector
 * of queries `by_vector`. */
INLINE void divide_by_totals(const LongTile *tile, const float *sums, int64_t by_vector, int64_t by_element,
                             const Vector *totals) {
  for (int64_t row = 0; row < tile->count; row += WIDTH, sums += by_vector) {
    const int64_t left = smaller(tile->count - row, WIDTH);
    const Vector inverse = vector_divide(vector_of(1.0f), totals[row / WIDTH]);
    for (int64_t e = 0; e < tile->size; e += WIDTH) {
      Vector r[WIDTH];
      UNROLL for (int i = 0; i < WIDTH; i++) r[i] = vector_multiply(vector_load(sums + (e + i) * by_element), inverse);
      vector_transpose(r);
      for (int i = 0; i < left; i++) vector_store(tile->outputs[row + i] + e, r[i]);
    }
  }
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
