/* Decode: the lanes of a vector are keys, which are transposed first, so that no lane is idle with one query. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_X86

#include <stdlib.h>
#include <string.h>

#include "attention/vectors.h"
#include "common/memory.h"

enum { ROWS_AT_ONCE = 6 /* queries whose sums are in registers, four vectors each */ };

typedef struct {
  float *transposed;                                  /* [E, KEY_BLOCK], the keys of a block */
  float *floats;                                      /* [KEY_BLOCK, E], its keys or values if the cache is int8 */
  _Alignas(64) float scores[DECODE_ROWS * KEY_BLOCK]; /* later the weights */
  float factors[DECODE_ROWS];
} State;

/* Transpose 16 keys of 16 elements. */
INLINE void transpose_keys(const float *from, int64_t stride, int count, float *to) {
  const float *rows[16];
  for (int i = 0; i < 16; i++) rows[i] = from + i * stride;
  __m512i r[16];
  load_transposed(r, rows, 0, count);
  for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * KEY_BLOCK, r[i]);
}

/* Prefetch `bytes` bytes from `ahead` on. A processor prefetches consecutive rows by itself, but not beyond a page, and a
 * page is a block of keys or a quarter of one. */
INLINE void prefetch(const char *ahead, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch(ahead + at, _MM_HINT_T1);
}

/* scores[count, KEY_BLOCK] = queries · transposed keys, for `count` queries from `row` on. Prefetch from `ahead` on, unless
 * it is NULL. */
INLINE void score(State *state, const QueryTile *queries, int row, const char *ahead, const int count) {
  const int64_t part = KEY_BLOCK * cache_row_bytes(queries->size, queries->int8) / queries->size;
  __m512 sum[ROWS_AT_ONCE][4];
  for (int r = 0; r < count; r++)
    for (int v = 0; v < 4; v++) sum[r][v] = _mm512_setzero_ps();
  for (int64_t e = 0; e < queries->size; e++) {
    __m512 keys[4];
    for (int v = 0; v < 4; v++) keys[v] = _mm512_load_ps(state->transposed + e * KEY_BLOCK + v * 16);
    if (ahead != NULL) prefetch(ahead + e * part, part);
    for (int r = 0; r < count; r++) {
      const __m512 query = _mm512_set1_ps(queries->vectors[row + r][e]);
      for (int v = 0; v < 4; v++) sum[r][v] = _mm512_fmadd_ps(query, keys[v], sum[r][v]);
    }
  }
  for (int r = 0; r < count; r++)
    for (int v = 0; v < 4; v++) _mm512_store_ps(state->scores + (row + r) * KEY_BLOCK + v * 16, sum[r][v]);
}

/* sums = factors * sums + weights · values[keys, E], for `vectors` vectors of columns. */
INLINE void add_values(const State *state, const QueryTile *queries, int row, const int count, const float *values,
                       int64_t keys, int64_t column, const char *ahead, const int vectors) {
  const int64_t part = cache_row_bytes(queries->size, queries->int8);
  __m512 sum[ROWS_AT_ONCE][4];
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++)
      sum[r][v] = _mm512_mul_ps(_mm512_loadu_ps(queries->sums[row + r] + column + v * 16),
                                _mm512_set1_ps(state->factors[row + r]));
  for (int64_t key = 0; key < keys; key++) {
    __m512 value[4];
    for (int v = 0; v < vectors; v++) value[v] = _mm512_loadu_ps(values + key * queries->size + column + v * 16);
    if (ahead != NULL) prefetch(ahead + key * part, part);
    for (int r = 0; r < count; r++) {
      const __m512 weight = _mm512_set1_ps(state->scores[(row + r) * KEY_BLOCK + key]);
      for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(weight, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(queries->sums[row + r] + column + v * 16, sum[r][v]);
}

/* Turn the scores of one query into weights relative to the running maximum, and compute the factor that corrects the sums
 * of earlier blocks. */
INLINE void softmax(State *state, QueryTile *queries, int row, int64_t first, __m512 scale) {
  float *scores = state->scores + row * KEY_BLOCK;
  const int64_t last = queries->positions[row] - first; /* of the block's keys that the query sees */
  const int64_t begin = queries->window > 0 ? last - queries->window + 1 : 0;
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i low = _mm512_set1_epi32((int)larger(begin, 0)), high = _mm512_set1_epi32((int)smaller(last, KEY_BLOCK));
  __m512 s[4], top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
  for (int v = 0; v < 4; v++) {
    const __m512i key = _mm512_add_epi32(lane, _mm512_set1_epi32(v * 16));
    const __mmask16 seen = _mm512_cmple_epi32_mask(key, high) & _mm512_cmpge_epi32_mask(key, low);
    s[v] = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), _mm512_load_ps(scores + v * 16));
    top = _mm512_max_ps(top, s[v]);
  }
  const __m512 before = _mm512_set1_ps(queries->maxima[row]);
  const __m512 now = _mm512_max_ps(before, _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(top)), scale));
  const __m512 less = finite_or_zero(now);
  for (int v = 0; v < 4; v++) {
    const __m512 weight = power_of_two(_mm512_fmsub_ps(s[v], scale, less));
    _mm512_store_ps(scores + v * 16, weight);
    total = _mm512_add_ps(total, weight);
  }
  const __m512 factor = power_of_two(_mm512_sub_ps(before, less));
  total = _mm512_set1_ps(_mm512_reduce_add_ps(total));
  state->factors[row] = _mm512_cvtss_f32(factor);
  queries->totals[row] = _mm512_cvtss_f32(_mm512_fmadd_ps(_mm512_set1_ps(queries->totals[row]), factor, total));
  queries->maxima[row] = _mm512_cvtss_f32(now);
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

TARGET int attend_decode(QueryTile *queries) {
  const int64_t size = queries->size, transposed = (sizeof(State) + 63) / 64 * 64;
  const __m512 scale = _mm512_set1_ps(queries->scale * LOG2_E);
  State *state = allocate_aligned(transposed + 2 * size * KEY_BLOCK * sizeof(float));
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
    for (int64_t key = 0; key < KEY_BLOCK; key += 16)
      for (int64_t e = 0; e < size; e += 16)
        transpose_keys(keys + key * size + e, size, (int)smaller(16, count - key),
                       state->transposed + e * KEY_BLOCK + key);
    for (int row = 0; row < queries->count; row += ROWS_AT_ONCE) {
      const char *ahead = skipped > 0 && row == 0 ? queries->keys + skipped : NULL;
#define SCORE(R) score(state, queries, row, ahead, R)
      BY_ROWS(queries->count - row, SCORE)
#undef SCORE
    }
    for (int row = 0; row < queries->count; row++) softmax(state, queries, row, first, scale);
    const float *values = load_floats(queries->values, queries, first, count, state->floats);
    for (int64_t column = 0; column < size; column += 64) {
      for (int row = 0; row < queries->count; row += ROWS_AT_ONCE) {
        const char *ahead = skipped > 0 && row + column == 0 ? queries->values + skipped : NULL;
#define FOUR(R) add_values(state, queries, row, R, values, count, column, ahead, 4)
#define THREE(R) add_values(state, queries, row, R, values, count, column, ahead, 3)
#define TWO(R) add_values(state, queries, row, R, values, count, column, ahead, 2)
#define ONE(R) add_values(state, queries, row, R, values, count, column, ahead, 1)
        switch (smaller(64, size - column) / 16) {
          case 4: BY_ROWS(queries->count - row, FOUR) break;
          case 3: BY_ROWS(queries->count - row, THREE) break;
          case 2: BY_ROWS(queries->count - row, TWO) break;
          case 1: BY_ROWS(queries->count - row, ONE) break;
        }
      }
    }
  }
  free_aligned(state);
  return 0;
}

#endif
