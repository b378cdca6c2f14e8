/* Prefill: the lanes of a vector are queries, so that keys and values are read in place, and no sum or maximum runs over
 * lanes. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_X86

#include <stdlib.h>

#include "attention/vectors.h"
#include "common/memory.h"

enum {
  VECTORS = MAX_ROWS / 16,
  AT_ONCE = 8, /* keys, or columns of values, whose sums for all queries are in registers */
};

typedef struct {
  float *queries; /* [E, MAX_ROWS] */
  float *sums;    /* [E, MAX_ROWS] */
  float *scores;  /* [KEY_BLOCK, MAX_ROWS], later the weights */
  float *floats;  /* [KEY_BLOCK, E], the keys or values of a block if the cache is int8 */
  __m512 maxima[VECTORS], totals[VECTORS], factors[VECTORS];
} State;

/* scores[AT_ONCE, queries] = keys · queries, for `left` keys, at most AT_ONCE. */
INLINE void score(const State *state, const float *keys, int64_t left, int64_t size, float *scores, const int vectors) {
  const float *each[AT_ONCE]; /* the last one repeated if there are fewer */
  for (int k = 0; k < AT_ONCE; k++) each[k] = keys + smaller(k, left - 1) * size;
  __m512 sum[AT_ONCE][VECTORS];
  for (int k = 0; k < AT_ONCE; k++)
    for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_setzero_ps();
  for (int64_t e = 0; e < size; e++) {
    __m512 query[VECTORS];
    for (int v = 0; v < vectors; v++) query[v] = _mm512_load_ps(state->queries + e * MAX_ROWS + v * 16);
    for (int k = 0; k < AT_ONCE; k++) {
      const __m512 key = _mm512_set1_ps(each[k][e]);
      for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_fmadd_ps(query[v], key, sum[k][v]);
    }
  }
  for (int k = 0; k < AT_ONCE; k++)
    for (int v = 0; v < vectors; v++) _mm512_store_ps(scores + k * MAX_ROWS + v * 16, sum[k][v]);
}

/* sums[AT_ONCE columns] = factors * sums + values · weights. */
INLINE void add_values(const State *state, const float *values, int64_t count, int64_t size, float *sums,
                       const int vectors) {
  __m512 sum[AT_ONCE][VECTORS];
  for (int c = 0; c < AT_ONCE; c++)
    for (int v = 0; v < vectors; v++)
      sum[c][v] = _mm512_mul_ps(_mm512_load_ps(sums + c * MAX_ROWS + v * 16), state->factors[v]);
  for (int64_t key = 0; key < count; key++) {
    __m512 weight[VECTORS];
    for (int v = 0; v < vectors; v++) weight[v] = _mm512_load_ps(state->scores + key * MAX_ROWS + v * 16);
    for (int c = 0; c < AT_ONCE; c++) {
      const __m512 value = _mm512_set1_ps(values[key * size + c]);
      for (int v = 0; v < vectors; v++) sum[c][v] = _mm512_fmadd_ps(weight[v], value, sum[c][v]);
    }
  }
  for (int c = 0; c < AT_ONCE; c++)
    for (int v = 0; v < vectors; v++) _mm512_store_ps(sums + c * MAX_ROWS + v * 16, sum[c][v]);
}

/* Set scores of keys that a query does not see to -inf. */
INLINE void mask_scores(const State *state, const QueryTile *queries, int64_t first, int64_t count, const int vectors) {
  for (int v = 0; v < vectors; v++) {
    _Alignas(64) int32_t begins[16], ends[16]; /* of the block's keys that a query sees */
    for (int lane = 0; lane < 16; lane++) {
      const int64_t last = queries->positions[smaller(v * 16 + lane, queries->count - 1)] - first;
      ends[lane] = (int32_t)smaller(last, KEY_BLOCK);
      begins[lane] = queries->window > 0 ? (int32_t)larger(last - queries->window + 1, 0) : 0;
    }
    const __m512i begin = _mm512_load_si512(begins), end = _mm512_load_si512(ends);
    for (int64_t key = 0; key < count; key++) {
      const __m512i at = _mm512_set1_epi32((int)key);
      const __mmask16 hidden = _mm512_cmplt_epi32_mask(at, begin) | _mm512_cmpgt_epi32_mask(at, end);
      _mm512_mask_store_ps(state->scores + key * MAX_ROWS + v * 16, hidden, _mm512_set1_ps(-INFINITY));
    }
  }
}

/* Turn scores into weights. They are summed in the order of `attend_decode`: as vectors of 16 keys, then lanes by halves. */
INLINE void softmax(State *state, int64_t count, __m512 scale, const int vectors) {
  for (int v = 0; v < vectors; v++) {
    float *scores = state->scores + v * 16;
    __m512 top[4];
    for (int i = 0; i < 4; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (int64_t key = 0; key < count; key++)
      top[key % 4] = _mm512_max_ps(top[key % 4], _mm512_load_ps(scores + key * MAX_ROWS));
    const __m512 largest = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    const __m512 before = state->maxima[v], now = _mm512_max_ps(before, _mm512_mul_ps(largest, scale));
    const __m512 less = finite_or_zero(now);
    __m512 total[16];
    for (int lane = 0; lane < 16; lane++) {
      total[lane] = _mm512_setzero_ps();
      for (int64_t key = lane; key < count; key += 16) {
        float *at = scores + key * MAX_ROWS;
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

INLINE void attend(State *state, const QueryTile *queries, const int vectors) {
  const int64_t size = queries->size;
  const __m512 scale = _mm512_set1_ps(queries->scale * LOG2_E);
  for (int v = 0; v < vectors; v++) {
    state->maxima[v] = _mm512_set1_ps(-INFINITY);
    state->totals[v] = _mm512_setzero_ps();
    for (int64_t e = 0; e < size; e++) _mm512_store_ps(state->sums + e * MAX_ROWS + v * 16, _mm512_setzero_ps());
  }
  for (int64_t first = queries->from / KEY_BLOCK * KEY_BLOCK; first < queries->to; first += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, queries->to - first);
    const float *keys = load_floats(queries->keys, queries, first, count, state->floats);
    for (int64_t key = 0; key < count; key += AT_ONCE)
      score(state, keys + key * size, count - key, size, state->scores + key * MAX_ROWS, vectors);
    if (queries->positions[0] < first + count - 1 ||
        (queries->window > 0 && first <= queries->positions[queries->count - 1] - queries->window))
      mask_scores(state, queries, first, count, vectors);
    softmax(state, count, scale, vectors);
    const float *values = load_floats(queries->values, queries, first, count, state->floats);
    for (int64_t e = 0; e < size; e += AT_ONCE)
      add_values(state, values + e, count, size, state->sums + e * MAX_ROWS, vectors);
  }
}

TARGET static void attend_1(State *state, const QueryTile *queries) { attend(state, queries, 1); }
TARGET static void attend_2(State *state, const QueryTile *queries) { attend(state, queries, 2); }
TARGET static void attend_3(State *state, const QueryTile *queries) { attend(state, queries, 3); }

TARGET int attend_prefill(QueryTile *queries) {
  const int64_t transposed = queries->size * MAX_ROWS;
  float *memory = allocate_aligned((2 * transposed + KEY_BLOCK * (MAX_ROWS + queries->size)) * sizeof(float));
  if (memory == NULL) return -1;
  State state = {.queries = memory, .sums = memory + transposed, .scores = memory + 2 * transposed};
  state.floats = state.scores + KEY_BLOCK * MAX_ROWS;
  __m512i r[16];
  for (int row = 0; row < queries->count; row += 16) {
    for (int64_t e = 0; e < queries->size; e += 16) {
      load_transposed(r, queries->vectors + row, e, (int)smaller(queries->count - row, 16));
      for (int i = 0; i < 16; i++) _mm512_store_si512(state.queries + (e + i) * MAX_ROWS + row, r[i]);
    }
  }
  if (queries->count > 32) attend_3(&state, queries);
  else if (queries->count > 16) attend_2(&state, queries);
  else attend_1(&state, queries);
  for (int row = 0; row < queries->count; row += 16) {
    const int left = (int)smaller(queries->count - row, 16);
    for (int64_t e = 0; e < queries->size; e += 16) {
      for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512(state.sums + (e + i) * MAX_ROWS + row);
      transpose_words(r);
      for (int i = 0; i < left; i++) _mm512_storeu_si512(queries->sums[row + i] + e, r[i]);
    }
    const __mmask16 real = (__mmask16)((1u << left) - 1);
    _mm512_mask_storeu_ps(queries->maxima + row, real, state.maxima[row / 16]);
    _mm512_mask_storeu_ps(queries->totals + row, real, state.totals[row / 16]);
  }
  free_aligned(memory);
  return 0;
}

#endif
