/* Keys in the lanes of vectors, turned for it: nothing is computed for rows that there are not. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <stdlib.h>
#include <string.h>

#include "attention/vectors.h"
#include "common/memory.h"

enum { SIX = 6 /* rows whose sums are in registers together, four vectors of each */ };

typedef struct {
  float *turned; /* [E, PIECE], a piece's keys */
  float *floats; /* [PIECE, E], its keys or values, where the cache has them in another form */
  _Alignas(64) float scores[FEW_ROWS * PIECE]; /* then the weights */
  float factors[FEW_ROWS];
} State;

/* 16 keys of 16 elements, turned. */
INLINE void turn(const float *from, int64_t stride, int count, float *to) {
  const float *rows[16];
  for (int i = 0; i < 16; i++) rows[i] = from + i * stride;
  __m512i r[16];
  load_turned(r, rows, 0, count);
  for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * PIECE, r[i]);
}

/* What is read next comes from memory meanwhile: `bytes` bytes from `ahead` on. Processors foresee rows one after the
 * other, but not beyond a page, and a page is a piece or a quarter of one. */
INLINE void fetch(const char *ahead, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch(ahead + at, _MM_HINT_T1);
}

/* scores[rows, PIECE] = queries · turned keys, for `count` rows from `row`; `ahead`, if it is not NULL, is fetched. */
INLINE void score(State *state, const Rows *rows, int row, const char *ahead, const int count) {
  const int64_t part = PIECE * cache_row_bytes(rows->size, rows->int8) / rows->size;
  __m512 sum[SIX][4];
  for (int r = 0; r < count; r++)
    for (int v = 0; v < 4; v++) sum[r][v] = _mm512_setzero_ps();
  for (int64_t e = 0; e < rows->size; e++) {
    __m512 keys[4];
    for (int v = 0; v < 4; v++) keys[v] = _mm512_load_ps(state->turned + e * PIECE + v * 16);
    if (ahead != NULL) fetch(ahead + e * part, part);
    for (int r = 0; r < count; r++) {
      const __m512 query = _mm512_set1_ps(rows->queries[row + r][e]);
      for (int v = 0; v < 4; v++) sum[r][v] = _mm512_fmadd_ps(query, keys[v], sum[r][v]);
    }
  }
  for (int r = 0; r < count; r++)
    for (int v = 0; v < 4; v++) _mm512_store_ps(state->scores + (row + r) * PIECE + v * 16, sum[r][v]);
}

/* `vectors` vectors of columns: sums = factors * sums + weights · values[keys, E]. */
INLINE void add_values(const State *state, const Rows *rows, int row, const int count, const float *values,
                       int64_t keys, int64_t column, const char *ahead, const int vectors) {
  const int64_t part = cache_row_bytes(rows->size, rows->int8);
  __m512 sum[SIX][4];
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++)
      sum[r][v] = _mm512_mul_ps(_mm512_loadu_ps(rows->sums[row + r] + column + v * 16),
                                _mm512_set1_ps(state->factors[row + r]));
  for (int64_t key = 0; key < keys; key++) {
    __m512 value[4];
    for (int v = 0; v < vectors; v++) value[v] = _mm512_loadu_ps(values + key * rows->size + column + v * 16);
    if (ahead != NULL) fetch(ahead + key * part, part);
    for (int r = 0; r < count; r++) {
      const __m512 weight = _mm512_set1_ps(state->scores[(row + r) * PIECE + key]);
      for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(weight, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(rows->sums[row + r] + column + v * 16, sum[r][v]);
}

/* The scores of one row become weights less a running maximum; what was summed before is to be scaled by a factor. */
INLINE void weigh(State *state, Rows *rows, int row, int64_t first, __m512 scale) {
  float *scores = state->scores + row * PIECE;
  const int64_t last = rows->positions[row] - first; /* of the piece's keys that the row sees */
  const int64_t begin = rows->window > 0 ? last - rows->window + 1 : 0;
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i low = _mm512_set1_epi32((int)larger(begin, 0)), high = _mm512_set1_epi32((int)smaller(last, PIECE));
  __m512 s[4], top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
  for (int v = 0; v < 4; v++) {
    const __m512i key = _mm512_add_epi32(lane, _mm512_set1_epi32(v * 16));
    const __mmask16 seen = _mm512_cmple_epi32_mask(key, high) & _mm512_cmpge_epi32_mask(key, low);
    s[v] = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), _mm512_load_ps(scores + v * 16));
    top = _mm512_max_ps(top, s[v]);
  }
  const __m512 before = _mm512_set1_ps(rows->maxima[row]);
  const __m512 now = _mm512_max_ps(before, _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(top)), scale));
  const __m512 less = reference(now);
  for (int v = 0; v < 4; v++) {
    const __m512 weight = power_of_two(_mm512_fmsub_ps(s[v], scale, less));
    _mm512_store_ps(scores + v * 16, weight);
    total = _mm512_add_ps(total, weight);
  }
  const __m512 factor = power_of_two(_mm512_sub_ps(before, less));
  total = _mm512_set1_ps(_mm512_reduce_add_ps(total));
  state->factors[row] = _mm512_cvtss_f32(factor);
  rows->totals[row] = _mm512_cvtss_f32(_mm512_fmadd_ps(_mm512_set1_ps(rows->totals[row]), factor, total));
  rows->maxima[row] = _mm512_cvtss_f32(now);
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

TARGET int attend_few(Rows *rows) {
  const int64_t size = rows->size, turned = (sizeof(State) + 63) / 64 * 64;
  const __m512 scale = _mm512_set1_ps(rows->scale * LOG2_E);
  State *state = allocate_aligned(turned + 2 * size * PIECE * sizeof(float));
  if (state == NULL) return -1;
  state->turned = (float *)((char *)state + turned);
  state->floats = state->turned + size * PIECE;
  for (int row = 0; row < rows->rows; row++) {
    rows->maxima[row] = -INFINITY;
    rows->totals[row] = 0.0f;
    memset(rows->sums[row], 0, size * sizeof(float));
  }
  for (int64_t first = rows->from / PIECE * PIECE; first < rows->to; first += PIECE) {
    const int64_t count = smaller(PIECE, rows->to - first), next = first + PIECE;
    const int64_t skipped = next < rows->to ? next * cache_row_bytes(size, rows->int8) : 0; /* 0 where nothing is next */
    const float *keys = floats_of(rows->keys, rows, first, count, state->floats);
    for (int64_t key = 0; key < PIECE; key += 16)
      for (int64_t e = 0; e < size; e += 16)
        turn(keys + key * size + e, size, (int)smaller(16, count - key), state->turned + e * PIECE + key);
    for (int row = 0; row < rows->rows; row += SIX) {
      const char *ahead = skipped > 0 && row == 0 ? rows->keys + skipped : NULL;
#define SCORE(R) score(state, rows, row, ahead, R)
      BY_ROWS(rows->rows - row, SCORE)
#undef SCORE
    }
    for (int row = 0; row < rows->rows; row++) weigh(state, rows, row, first, scale);
    const float *values = floats_of(rows->values, rows, first, count, state->floats);
    for (int64_t column = 0; column < size; column += 64) {
      for (int row = 0; row < rows->rows; row += SIX) {
        const char *ahead = skipped > 0 && row + column == 0 ? rows->values + skipped : NULL;
#define FOUR(R) add_values(state, rows, row, R, values, count, column, ahead, 4)
#define THREE(R) add_values(state, rows, row, R, values, count, column, ahead, 3)
#define TWO(R) add_values(state, rows, row, R, values, count, column, ahead, 2)
#define ONE(R) add_values(state, rows, row, R, values, count, column, ahead, 1)
        switch (smaller(64, size - column) / 16) {
          case 4: BY_ROWS(rows->rows - row, FOUR) break;
          case 3: BY_ROWS(rows->rows - row, THREE) break;
          case 2: BY_ROWS(rows->rows - row, TWO) break;
          case 1: BY_ROWS(rows->rows - row, ONE) break;
        }
      }
    }
  }
  free_aligned(state);
  return 0;
}

#endif
