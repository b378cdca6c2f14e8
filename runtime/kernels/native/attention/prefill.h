/* Prefill: the lanes of a vector are queries, so that keys and values are read in place, and no sum or maximum runs over
 * lanes.
 *
 * Compiled for the instruction set of the file that includes this. That file defines PREFILL_KEYS, how many keys, or columns
 * of values, have sums in registers with PREFILL_VECTORS vectors of queries.
 */
#include "attention/vectors.h"

enum { PREFILL_VECTORS = 3, QUERY_VECTORS = MAX_ROWS / WIDTH };

typedef struct {
  float *queries; /* [E, MAX_ROWS] */
  float *sums;    /* [E, MAX_ROWS] */
  float *scores;  /* [KEY_BLOCK, MAX_ROWS], later the weights */
  float *floats;  /* [KEY_BLOCK, E], the keys or values of a block if the cache is int8 */
  Vector maxima[QUERY_VECTORS], totals[QUERY_VECTORS], factors[QUERY_VECTORS];
} PrefillState;

/* scores[PREFILL_KEYS, vectors] = keys · queries from vector `begin` on, for `left` keys, at most PREFILL_KEYS. */
INLINE void score_keys(const PrefillState *state, const float *keys, int64_t left, int64_t size, float *scores,
                       int begin, const int vectors) {
  const float *each[PREFILL_KEYS]; /* the last one repeated if there are fewer */
  UNROLL for (int k = 0; k < PREFILL_KEYS; k++) each[k] = keys + smaller(k, left - 1) * size;
  Vector sum[PREFILL_KEYS][PREFILL_VECTORS];
  UNROLL for (int k = 0; k < PREFILL_KEYS; k++) UNROLL for (int v = 0; v < vectors; v++) sum[k][v] = vector_zero();
  for (int64_t e = 0; e < size; e++) {
    Vector query[PREFILL_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) query[v] =
        vector_load(state->queries + e * MAX_ROWS + (begin + v) * WIDTH);
    UNROLL for (int k = 0; k < PREFILL_KEYS; k++) {
      const Vector key = vector_of(each[k][e]);
      UNROLL for (int v = 0; v < vectors; v++) sum[k][v] = vector_fma(query[v], key, sum[k][v]);
    }
  }
  UNROLL for (int k = 0; k < PREFILL_KEYS; k++) UNROLL for (int v = 0; v < vectors; v++)
      vector_store(scores + k * MAX_ROWS + (begin + v) * WIDTH, sum[k][v]);
}

INLINE void score_block(const PrefillState *state, const float *keys, int64_t count, int64_t size, int begin,
                        const int vectors) {
  for (int64_t key = 0; key < count; key += PREFILL_KEYS)
    score_keys(state, keys + key * size, count - key, size, state->scores + key * MAX_ROWS, begin, vectors);
}

/* sums[PREFILL_KEYS columns, vectors] = factors * sums + values · weights. */
INLINE void add_columns(const PrefillState *state, const float *values, int64_t count, int64_t size, float *sums,
                        int begin, const int vectors) {
  Vector sum[PREFILL_KEYS][PREFILL_VECTORS];
  UNROLL for (int c = 0; c < PREFILL_KEYS; c++) UNROLL for (int v = 0; v < vectors; v++) sum[c][v] =
      vector_multiply(vector_load(sums + c * MAX_ROWS + (begin + v) * WIDTH), state->factors[begin + v]);
  for (int64_t key = 0; key < count; key++) {
    Vector weight[PREFILL_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) weight[v] =
        vector_load(state->scores + key * MAX_ROWS + (begin + v) * WIDTH);
    UNROLL for (int c = 0; c < PREFILL_KEYS; c++) {
      const Vector value = vector_of(values[key * size + c]);
      UNROLL for (int v = 0; v < vectors; v++) sum[c][v] = vector_fma(weight[v], value, sum[c][v]);
    }
  }
  UNROLL for (int c = 0; c < PREFILL_KEYS; c++) UNROLL for (int v = 0; v < vectors; v++)
      vector_store(sums + c * MAX_ROWS + (begin + v) * WIDTH, sum[c][v]);
}

INLINE void add_block(const PrefillState *state, const float *values, int64_t count, int64_t size, int begin,
                      const int vectors) {
  for (int64_t e = 0; e < size; e += PREFILL_KEYS)
    add_columns(state, values + e, count, size, state->sums + e * MAX_ROWS, begin, vectors);
}

/* Set scores of keys that a query does not see to -inf. */
INLINE void mask_scores(const PrefillState *state, const QueryTile *queries, int64_t first, int64_t count,
                        int vectors) {
  for (int v = 0; v < vectors; v++) {
    Vector begin, end;
    seen_keys(queries->positions, queries->count, queries->window, v * WIDTH, first, &begin, &end);
    for (int64_t key = 0; key < count; key++) {
      float *scores = state->scores + key * MAX_ROWS + v * WIDTH;
      vector_store(scores, mask_score(vector_load(scores), begin, end, key));
    }
  }
}

/* Turn scores into weights. They are summed in the order of `attend_decode`: 16 keys at a time, then by halves. */
INLINE void softmax_of_block(PrefillState *state, int64_t count, Vector scale, int vectors) {
  for (int v = 0; v < vectors; v++) {
    float *scores = state->scores + v * WIDTH;
    Vector top[4];
    UNROLL for (int i = 0; i < 4; i++) top[i] = vector_of(-INFINITY);
    for (int64_t key = 0; key < count; key++)
      top[key % 4] = vector_max(top[key % 4], vector_load(scores + key * MAX_ROWS));
    const Vector largest = vector_max(vector_max(top[0], top[1]), vector_max(top[2], top[3]));
    const Vector before = state->maxima[v], now = vector_max(before, vector_multiply(largest, scale));
    const Vector less = finite_or_zero(now);
    Vector total[16];
    for (int lane = 0; lane < 16; lane++) {
      total[lane] = vector_zero();
      for (int64_t key = lane; key < count; key += 16) {
        float *at = scores + key * MAX_ROWS;
        const Vector weight = vector_power_of_two(vector_fms(vector_load(at), scale, less));
        vector_store(at, weight);
        total[lane] = vector_add(total[lane], weight);
      }
    }
    for (int half = 8; half > 0; half /= 2)
      for (int lane = 0; lane < half; lane++) total[lane] = vector_add(total[lane], total[lane + half]);
    state->factors[v] = vector_power_of_two(vector_subtract(before, less));
    state->totals[v] = vector_fma(state->totals[v], state->factors[v], total[0]);
    state->maxima[v] = now;
  }
}

/* Call for all vectors of queries, PREFILL_VECTORS at a time. */
#define BY_VECTORS(CALL, ...) \
  for (int begin = 0; begin < vectors; begin += PREFILL_VECTORS) { \
    switch (vectors - begin) { \
      case 1: CALL(__VA_ARGS__, begin, 1); break; \
      case 2: CALL(__VA_ARGS__, begin, 2); break; \
      default: CALL(__VA_ARGS__, begin, PREFILL_VECTORS); break; \
    } \
  }

INLINE void attend_keys(PrefillState *state, const QueryTile *queries, int vectors) {
  const int64_t size = queries->size;
  const Vector scale = vector_of(queries->scale * LOG2_E);
  for (int64_t first = queries->from / KEY_BLOCK * KEY_BLOCK; first < queries->to; first += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, queries->to - first);
    const float *keys = load_floats(queries->keys, queries, first, count, state->floats);
    BY_VECTORS(score_block, state, keys, count, size)
    if (queries->positions[0] < first + count - 1 ||
        (queries->window > 0 && first <= queries->positions[queries->count - 1] - queries->window))
      mask_scores(state, queries, first, count, vectors);
    softmax_of_block(state, count, scale, vectors);
    const float *values = load_floats(queries->values, queries, first, count, state->floats);
    BY_VECTORS(add_block, state, values, count, size)
  }
}

TARGET static int attend_prefill(QueryTile *queries) {
  const int64_t size = queries->size, transposed = size * MAX_ROWS;
  const int vectors = (queries->count + WIDTH - 1) / WIDTH;
  float *memory = allocate_aligned((2 * transposed + KEY_BLOCK * (MAX_ROWS + size)) * sizeof(float));
  if (memory == NULL) return -1;
  PrefillState state = {.queries = memory, .sums = memory + transposed, .scores = memory + 2 * transposed};
  state.floats = state.scores + KEY_BLOCK * MAX_ROWS;
  Vector r[WIDTH];
  for (int v = 0; v < vectors; v++) {
    state.maxima[v] = vector_of(-INFINITY);
    state.totals[v] = vector_zero();
    for (int64_t e = 0; e < size; e += WIDTH) {
      load_transposed(r, queries->vectors + v * WIDTH, e, queries->count - v * WIDTH);
      UNROLL for (int i = 0; i < WIDTH; i++) {
        vector_store(state.queries + (e + i) * MAX_ROWS + v * WIDTH, r[i]);
        vector_store(state.sums + (e + i) * MAX_ROWS + v * WIDTH, vector_zero());
      }
    }
  }
  attend_keys(&state, queries, vectors);
  for (int v = 0; v < vectors; v++) {
    const int row = v * WIDTH, left = (int)smaller(queries->count - row, WIDTH);
    for (int64_t e = 0; e < size; e += WIDTH) {
      UNROLL for (int i = 0; i < WIDTH; i++) r[i] = vector_load(state.sums + (e + i) * MAX_ROWS + row);
      vector_transpose(r);
      for (int i = 0; i < left; i++) vector_store(queries->sums[row + i] + e, r[i]);
    }
    vector_store(queries->maxima + row, state.maxima[v]); /* of rows that do not exist, too */
    vector_store(queries->totals + row, state.totals[v]);
  }
  free_aligned(memory);
  return 0;
}
