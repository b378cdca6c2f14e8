/* Decode: the lanes of a vector are keys, which are transposed first, so that no lane is idle with one query.
 *
 * Compiled for the instruction set of the file that includes this. That file defines DECODE_VECTORS, how many vectors of keys,
 * or of columns of values, have sums in registers with ROWS_AT_ONCE queries.
 */
#include "attention/vectors.h"

enum {
  ROWS_AT_ONCE = 6,         /* queries whose sums are in registers */
  PARTS_OF_16 = 16 / WIDTH, /* vectors; 16 weights are summed at once with all instruction sets */
  KEY_VECTORS = KEY_BLOCK / WIDTH,
};

typedef struct {
  float *transposed;                                  /* [E, KEY_BLOCK], the keys of a block */
  float *floats;                                      /* [KEY_BLOCK, E], its keys or values if the cache is int8 */
  _Alignas(64) float scores[DECODE_ROWS * KEY_BLOCK]; /* later the weights */
  float factors[DECODE_ROWS];
} DecodeState;

/* Transpose WIDTH keys of WIDTH elements. */
INLINE void transpose_keys(const float *from, int64_t stride, int count, float *to) {
  const float *rows[WIDTH];
  for (int i = 0; i < WIDTH; i++) rows[i] = from + i * stride;
  Vector r[WIDTH];
  load_transposed(r, rows, 0, count);
  UNROLL for (int i = 0; i < WIDTH; i++) vector_store(to + i * KEY_BLOCK, r[i]);
}

/* Prefetch `bytes` bytes from `ahead` on. A processor prefetches consecutive rows by itself, but not beyond a page, and a
 * page is a block of keys or a quarter of one. */
INLINE void prefetch(const char *ahead, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(ahead + at, 0, 2);
}

/* scores[count, DECODE_VECTORS vectors of keys] = queries · transposed keys, for `count` queries from `row` on. Prefetch from
 * `ahead` on, unless it is NULL. */
INLINE void score_vectors(DecodeState *state, const QueryTile *queries, int row, int key, const char *ahead,
                          const int count) {
  const int64_t part = KEY_BLOCK * cache_row_bytes(queries->size, queries->int8) / queries->size;
  Vector sum[ROWS_AT_ONCE][DECODE_VECTORS];
  UNROLL for (int r = 0; r < count; r++) UNROLL for (int v = 0; v < DECODE_VECTORS; v++) sum[r][v] = vector_zero();
  for (int64_t e = 0; e < queries->size; e++) {
    Vector keys[DECODE_VECTORS];
    UNROLL for (int v = 0; v < DECODE_VECTORS; v++) keys[v] =
        vector_load(state->transposed + e * KEY_BLOCK + key + v * WIDTH);
    if (ahead != NULL) prefetch(ahead + e * part, part);
    UNROLL for (int r = 0; r < count; r++) {
      const Vector query = vector_of(queries->vectors[row + r][e]);
      UNROLL for (int v = 0; v < DECODE_VECTORS; v++) sum[r][v] = vector_fma(query, keys[v], sum[r][v]);
    }
  }
  UNROLL for (int r = 0; r < count; r++) UNROLL for (int v = 0; v < DECODE_VECTORS; v++)
      vector_store(state->scores + (row + r) * KEY_BLOCK + key + v * WIDTH, sum[r][v]);
}

INLINE void score(DecodeState *state, const QueryTile *queries, int row, const char *ahead, const int count) {
  for (int key = 0; key < KEY_BLOCK; key += DECODE_VECTORS * WIDTH)
    score_vectors(state, queries, row, key, key == 0 ? ahead : NULL, count);
}

/* sums = factors * sums + weights · values[keys, E], for `vectors` vectors of columns. */
INLINE void add_values(const DecodeState *state, const QueryTile *queries, int row, const int count,
                       const float *values, int64_t keys, int64_t column, const char *ahead, const int vectors) {
  const int64_t part = cache_row_bytes(queries->size, queries->int8);
  Vector sum[ROWS_AT_ONCE][DECODE_VECTORS];
  UNROLL for (int r = 0; r < count; r++) UNROLL for (int v = 0; v < vectors; v++) sum[r][v] =
      vector_multiply(vector_load(queries->sums[row + r] + column + v * WIDTH), vector_of(state->factors[row + r]));
  for (int64_t key = 0; key < keys; key++) {
    Vector value[DECODE_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) value[v] = vector_load(values + key * queries->size + column + v * WIDTH);
    if (ahead != NULL) prefetch(ahead + key * part, part);
    UNROLL for (int r = 0; r < count; r++) {
      const Vector weight = vector_of(state->scores[(row + r) * KEY_BLOCK + key]);
      UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vector_fma(weight, value[v], sum[r][v]);
    }
  }
  UNROLL for (int r = 0; r < count; r++) UNROLL for (int v = 0; v < vectors; v++)
      vector_store(queries->sums[row + r] + column + v * WIDTH, sum[r][v]);
}

/* Turn the scores of one query into weights relative to the running maximum, and compute the factor that corrects the sums
 * of earlier blocks. */
INLINE void softmax_of_query(DecodeState *state, QueryTile *queries, int row, int64_t first, Vector scale) {
  static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  float *scores = state->scores + row * KEY_BLOCK;
  const int64_t last = queries->positions[row] - first; /* of the block's keys that the query sees */
  const int64_t begin = queries->window > 0 ? last - queries->window + 1 : 0;
  const Vector low = vector_of((float)larger(begin, 0)), high = vector_of((float)smaller(last, KEY_BLOCK));
  Vector s[KEY_VECTORS], top[PARTS_OF_16], total[PARTS_OF_16];
  UNROLL for (int p = 0; p < PARTS_OF_16; p++) {
    top[p] = vector_of(-INFINITY);
    total[p] = vector_zero();
  }
  UNROLL for (int v = 0; v < KEY_VECTORS; v++) {
    const Vector key = vector_add(vector_load(lanes), vector_of((float)(v * WIDTH)));
    const Mask seen = mask_and(vector_at_most(low, key), vector_at_most(key, high));
    s[v] = vector_select(seen, vector_load(scores + v * WIDTH), vector_of(-INFINITY));
    top[v % PARTS_OF_16] = vector_max(top[v % PARTS_OF_16], s[v]);
  }
  const Vector before = vector_of(queries->maxima[row]);
  const Vector now = vector_max(before, vector_multiply(vector_of(max_of_16(top)), scale));
  const Vector less = finite_or_zero(now);
  UNROLL for (int v = 0; v < KEY_VECTORS; v++) {
    const Vector weight = vector_power_of_two(vector_fms(s[v], scale, less));
    vector_store(scores + v * WIDTH, weight);
    total[v % PARTS_OF_16] = vector_add(total[v % PARTS_OF_16], weight);
  }
  const Vector factor = vector_power_of_two(vector_subtract(before, less)), sum = vector_of(sum_of_16(total));
  state->factors[row] = vector_first(factor);
  queries->totals[row] = vector_first(vector_fma(vector_of(queries->totals[row]), factor, sum));
  queries->maxima[row] = vector_first(now);
}

#define BY_ROWS(LEFT, CALL) \
  switch (LEFT) { \
    case 1: CALL(1); break; \
    case 2: CALL(2); break; \
    case 3: CALL(3); break; \
    case 4: CALL(4); break; \
    case 5: CALL(5); break; \
    default: CALL(6); break; \
  }

TARGET static int attend_decode(QueryTile *queries) {
  const int64_t size = queries->size, transposed = (sizeof(DecodeState) + 63) / 64 * 64;
  const Vector scale = vector_of(queries->scale * LOG2_E);
  DecodeState *state = allocate_aligned(transposed + 2 * size * KEY_BLOCK * sizeof(float));
  if (state == NULL) return -1;
  state->transposed = (float *)((char *)state + transposed);
  state->floats = state->transposed + size * KEY_BLOCK;
  for (int row = 0; row < queries->count; row++) {
    queries->maxima[row] = -INFINITY;
    queries->totals[row] = 0.0f;
    memset(queries->sums[row], 0, size * sizeof(float));
  }
  for (int64_t first = queries->from / KEY_BLOCK * KEY_BLOCK; first < queries->to; first += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, queries->to - first), next = first + KEY_BLOCK;
    const int64_t skipped =
        next < queries->to ? next * cache_row_bytes(size, queries->int8) : 0; /* 0 in the last block */
    const float *keys = load_floats(queries->keys, queries, first, count, state->floats);
    for (int64_t key = 0; key < KEY_BLOCK; key += WIDTH)
      for (int64_t e = 0; e < size; e += WIDTH)
        transpose_keys(keys + key * size + e, size, (int)smaller(WIDTH, count - key),
                       state->transposed + e * KEY_BLOCK + key);
    for (int row = 0; row < queries->count; row += ROWS_AT_ONCE) {
      const char *ahead = skipped > 0 && row == 0 ? queries->keys + skipped : NULL;
#define SCORE(R) score(state, queries, row, ahead, R)
      BY_ROWS(queries->count - row, SCORE)
#undef SCORE
    }
    for (int row = 0; row < queries->count; row++) softmax_of_query(state, queries, row, first, scale);
    const float *values = load_floats(queries->values, queries, first, count, state->floats);
    for (int64_t column = 0; column < size; column += DECODE_VECTORS * WIDTH) {
      for (int row = 0; row < queries->count; row += ROWS_AT_ONCE) {
        const char *ahead = skipped > 0 && row + column == 0 ? queries->values + skipped : NULL;
#define ADD(R, VECTORS) add_values(state, queries, row, R, values, count, column, ahead, VECTORS)
#define ONE(R) ADD(R, 1)
#define TWO(R) ADD(R, 2)
#define THREE(R) ADD(R, 3)
#define FOUR(R) ADD(R, 4)
        switch (smaller(DECODE_VECTORS * WIDTH, size - column) / WIDTH) {
          case 1: BY_ROWS(queries->count - row, ONE) break;
          case 2: BY_ROWS(queries->count - row, TWO) break;
#if DECODE_VECTORS > 2
          case 3: BY_ROWS(queries->count - row, THREE) break;
          case 4: BY_ROWS(queries->count - row, FOUR) break;
#endif
        }
      }
    }
  }
  free_aligned(state);
  return 0;
}
