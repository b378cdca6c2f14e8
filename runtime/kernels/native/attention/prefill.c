/* Rows in the lanes of vectors: keys and values are read as they lie, and no sum or maximum runs over lanes. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <stdlib.h>

#include "attention/vectors.h"
#include "common/memory.h"

enum {
  VECTORS = MOST_ROWS / 16,
  EIGHT = 8, /* keys, or columns of values, whose sums for all rows are in registers together */
};

typedef struct {
  float *queries; /* [E, MOST_ROWS] */
  float *sums;    /* [E, MOST_ROWS] */
  float *scores;  /* [PIECE, MOST_ROWS], then the weights */
  float *floats;  /* [PIECE, E], a piece's keys or values, where the cache has them in another form */
  __m512 maxima[VECTORS], totals[VECTORS], factors[VECTORS];
} State;

/* scores[EIGHT, rows] = keys · queries, for `left` keys, at most EIGHT. */
INLINE void score(const State *state, const float *keys, int64_t left, int64_t size, float *scores, const int vectors) {
  const float *each[EIGHT]; /* the last one again in place of those that there are not */
  for (int k = 0; k < EIGHT; k++) each[k] = keys + smaller(k, left - 1) * size;
  __m512 sum[EIGHT][VECTORS];
  for (int k = 0; k < EIGHT; k++)
    for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_setzero_ps();
  for (int64_t e = 0; e < size; e++) {
    __m512 query[VECTORS];
    for (int v = 0; v < vectors; v++) query[v] = _mm512_load_ps(state->queries + e * MOST_ROWS + v * 16);
    for (int k = 0; k < EIGHT; k++) {
      const __m512 key = _mm512_set1_ps(each[k][e]);
      for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_fmadd_ps(query[v], key, sum[k][v]);
    }
  }
  for (int k = 0; k < EIGHT; k++)
    for (int v = 0; v < vectors; v++) _mm512_store_ps(scores + k * MOST_ROWS + v * 16, sum[k][v]);
}

/* sums[EIGHT columns] = factors * sums + values · weights. */
INLINE void add_values(const State *state, const float *values, int64_t count, int64_t size, float *sums,
                       const int vectors) {
  __m512 sum[EIGHT][VECTORS];
  for (int c = 0; c < EIGHT; c++)
    for (int v = 0; v < vectors; v++)
      sum[c][v] = _mm512_mul_ps(_mm512_load_ps(sums + c * MOST_ROWS + v * 16), state->factors[v]);
  for (int64_t key = 0; key < count; key++) {
    __m512 weight[VECTORS];
    for (int v = 0; v < vectors; v++) weight[v] = _mm512_load_ps(state->scores + key * MOST_ROWS + v * 16);
    for (int c = 0; c < EIGHT; c++) {
      const __m512 value = _mm512_set1_ps(values[key * size + c]);
      for (int v = 0; v < vectors; v++) sum[c][v] = _mm512_fmadd_ps(weight[v], value, sum[c][v]);
    }
  }
  for (int c = 0; c < EIGHT; c++)
    for (int v = 0; v < vectors; v++) _mm512_store_ps(sums + c * MOST_ROWS + v * 16, sum[c][v]);
}

/* Scores of keys that a row does not see become -inf. */
INLINE void hide(const State *state, const Rows *rows, int64_t first, int64_t count, const int vectors) {
  for (int v = 0; v < vectors; v++) {
    _Alignas(64) int32_t begins[16], ends[16]; /* of the piece's keys that a row sees */
    for (int lane = 0; lane < 16; lane++) {
      const int64_t last = rows->positions[smaller(v * 16 + lane, rows->rows - 1)] - first;
      ends[lane] = (int32_t)smaller(last, PIECE);
      begins[lane] = rows->window > 0 ? (int32_t)larger(last - rows->window + 1, 0) : 0;
    }
    const __m512i begin = _mm512_load_si512(begins), end = _mm512_load_si512(ends);
    for (int64_t key = 0; key < count; key++) {
      const __m512i at = _mm512_set1_epi32((int)key);
      const __mmask16 hidden = _mm512_cmplt_epi32_mask(at, begin) | _mm512_cmpgt_epi32_mask(at, end);
      _mm512_mask_store_ps(state->scores + key * MOST_ROWS + v * 16, hidden, _mm512_set1_ps(-INFINITY));
    }
  }
}

/* Scores become weights. They are added up as vectors of 16 keys are, then their lanes by halves. */
INLINE void weigh(State *state, int64_t count, __m512 scale, const int vectors) {
  for (int v = 0; v < vectors; v++) {
    float *scores = state->scores + v * 16;
    __m512 top[4];
    for (int i = 0; i < 4; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (int64_t key = 0; key < count; key++)
      top[key % 4] = _mm512_max_ps(top[key % 4], _mm512_load_ps(scores + key * MOST_ROWS));
    const __m512 largest = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    const __m512 before = state->maxima[v], now = _mm512_max_ps(before, _mm512_mul_ps(largest, scale));
    const __m512 less = reference(now);
    __m512 total[16];
    for (int lane = 0; lane < 16; lane++) {
      total[lane] = _mm512_setzero_ps();
      for (int64_t key = lane; key < count; key += 16) {
        float *at = scores + key * MOST_ROWS;
        const __m512 weight = power_of_two(_mm512_fmsub_ps(_mm512_load_ps(at), scale, less));
        _mm512_store_ps(at, weight);
        total[lane] = _mm512_add_ps(total[lane], weight);
      }
    }
    for (int half = 8; half > 0; half /= 2)
      for (int lane = 0; lane < half; lane++) total[lane] = _mm512_add_ps(total[lane], total[lane + half]);
    state->factors[v] = power_of_two(_mm512_sub_ps(before, less));
    state->totals[v] = _mm512_fmadd_ps(state->totals[v], state->factors[v], total[0]);
    state->maxima[v] = now;
  }
}

INLINE void attend(State *state, const Rows *rows, const int vectors) {
  const int64_t size = rows->size;
  const __m512 scale = _mm512_set1_ps(rows->scale * LOG2_E);
  for (int v = 0; v < vectors; v++) {
    state->maxima[v] = _mm512_set1_ps(-INFINITY);
    state->totals[v] = _mm512_setzero_ps();
    for (int64_t e = 0; e < size; e++) _mm512_store_ps(state->sums + e * MOST_ROWS + v * 16, _mm512_setzero_ps());
  }
  for (int64_t first = rows->from / PIECE * PIECE; first < rows->to; first += PIECE) {
    const int64_t count = smaller(PIECE, rows->to - first);
    const float *keys = floats_of(rows->keys, rows, first, count, state->floats);
    for (int64_t key = 0; key < count; key += EIGHT)
      score(state, keys + key * size, count - key, size, state->scores + key * MOST_ROWS, vectors);
    if (rows->positions[0] < first + count - 1 ||
        (rows->window > 0 && first <= rows->positions[rows->rows - 1] - rows->window))
      hide(state, rows, first, count, vectors);
    weigh(state, count, scale, vectors);
    const float *values = floats_of(rows->values, rows, first, count, state->floats);
    for (int64_t e = 0; e < size; e += EIGHT)
      add_values(state, values + e, count, size, state->sums + e * MOST_ROWS, vectors);
  }
}

TARGET static void attend_1(State *state, const Rows *rows) { attend(state, rows, 1); }
TARGET static void attend_2(State *state, const Rows *rows) { attend(state, rows, 2); }
TARGET static void attend_3(State *state, const Rows *rows) { attend(state, rows, 3); }

TARGET int attend_many(Rows *rows) {
  const int64_t turned = rows->size * MOST_ROWS;
  float *memory = allocate_aligned((2 * turned + PIECE * (MOST_ROWS + rows->size)) * sizeof(float));
  if (memory == NULL) return -1;
  State state = {.queries = memory, .sums = memory + turned, .scores = memory + 2 * turned};
  state.floats = state.scores + PIECE * MOST_ROWS;
  __m512i r[16];
  for (int row = 0; row < rows->rows; row += 16) {
    for (int64_t e = 0; e < rows->size; e += 16) {
      load_turned(r, rows->queries + row, e, (int)smaller(rows->rows - row, 16));
      for (int i = 0; i < 16; i++) _mm512_store_si512(state.queries + (e + i) * MOST_ROWS + row, r[i]);
    }
  }
  if (rows->rows > 32) attend_3(&state, rows);
  else if (rows->rows > 16) attend_2(&state, rows);
  else attend_1(&state, rows);
  for (int row = 0; row < rows->rows; row += 16) {
    const int left = (int)smaller(rows->rows - row, 16);
    for (int64_t e = 0; e < rows->size; e += 16) {
      for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512(state.sums + (e + i) * MOST_ROWS + row);
      transpose_words(r);
      for (int i = 0; i < left; i++) _mm512_storeu_si512(rows->sums[row + i] + e, r[i]);
    }
    const __mmask16 real = (__mmask16)((1u << left) - 1);
    _mm512_mask_storeu_ps(rows->maxima + row, real, state.maxima[row / 16]);
    _mm512_mask_storeu_ps(rows->totals + row, real, state.totals[row / 16]);
  }
  free_aligned(memory);
  return 0;
}

#endif
