/* Attention of long sequences with products of int16, summed in int32.
 *
 * A query and a key are int16 with a scale each. Their elements are at most the largest number with which E products of the
 * largest cannot overflow: 5792 for 64 elements, an error of 2^-13 of the largest element. From keys the first key of their
 * block is subtracted, which all of the block's keys have much in common with where keys have a large bias; what a query has
 * with that key is computed in float32, and is added to the block's scores.
 *
 * Values are int16 with a power of two each. It is a part of their weights, so that sums over keys are integers too: weights
 * are at most 2^WEIGHT_BITS, that of the block's largest.
 *
 * VPDPWSSD adds to 32 bits the products of two pairs of int16, twice what a multiply-add of float32 does. Pairs are elements 2 i
 * and 2 i + 1 of a key, and keys 2 j and 2 j + 1 of a column of values. The lanes of a vector are queries, as in prefill.h.
 *
 * What a query gets depends on its keys alone, in blocks that start at multiples of KEY_BLOCK: a key that it does not see adds 0
 * to its sums.
 *
 * Compiled for the instruction set of the file that includes this. That file defines LONG_KEYS, how many keys, or columns of
 * values, have sums in registers with GROUP vectors of queries; Ints, a vector of int32, and:
 *
 *     ints_zero()                0
 *     ints_load(at), ints_store(at, a)
 *     ints_of(word)              the same in all lanes
 *     add_products(sum, a, b)    sum + the products of pairs of int16
 *     nearest(v)                 floats as integers
 *     floats_of(a)               and integers as floats
 *     pairs_of(low, high)        pairs of int16
 *     store_int16(to, a)         WIDTH numbers one after the other
 *     words_of(v), float_words(a)  the same bits
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPDPWSSD; the first key in place of the mean of all is
 * like J. Zhang et al., SageAttention, arXiv:2410.02367, section 4.2.
 */
#include "attention/vectors.h"

enum {
  GROUP = 3,                      /* vectors of queries whose sums are in registers */
  VECTORS = INTEGER_ROWS / WIDTH, /* of queries at most */
  LANES = INTEGER_ROWS,           /* of a row of all vectors */
  GROUP_LANES = GROUP * WIDTH,    /* and of a group's */
  WEIGHT_BITS = 12,               /* of the largest weight of a block */
  LARGEST_VALUE = 8191,           /* 2^12 * 8191 * KEY_BLOCK is below 2^31 */
  PAIRS = KEY_BLOCK / 2,          /* of keys of a block */
};

#define LEAST_VALUE 0x1p-40f /* a row whose elements are smaller has the scale of this */

typedef struct {
  const LongTile *tile;
  int64_t vectors;                     /* of queries */
  float largest;                       /* of the elements of queries and keys as integers */
  float *queries;                      /* [E, LANES], multiplied by the scale of the scores and log2 e */
  int32_t *pairs;                      /* [E / 2, LANES], the same as integers */
  int16_t *keys;                       /* [KEY_BLOCK, E] */
  int32_t *values;                     /* [PAIRS, E], pairs of keys */
  int32_t *scores;                     /* [KEY_BLOCK, GROUP_LANES], first integers, then floats */
  int32_t *weights;                    /* [PAIRS, GROUP_LANES], pairs of keys */
  float *sums;                         /* [E, LANES] */
  Vector scales[VECTORS];              /* of the queries */
  Vector references[VECTORS];          /* log2 of the largest weight */
  Vector totals[VECTORS];              /* the sums of weights */
  Vector factors[GROUP], gains[GROUP]; /* of the sums of earlier blocks, and of this one's */
  float center[MAX_HEAD_SIZE];         /* what is subtracted from the keys of a block */
  float key_scales[KEY_BLOCK];
  float exponents[KEY_BLOCK], inverses[KEY_BLOCK]; /* log2 of the values' scales; 1 / scale */
} State;

/* ---- operands ----------------------------------------------------------------------------------------------------- */

/* Return the elements from `at` on of a row of a KV cache. */
INLINE Vector load_elements(const char *row, int64_t at, float scale, const int int8) {
  return int8 ? vector_multiply(vector_from_int8((const int8_t *)row + at), vector_of(scale))
              : vector_load((const float *)row + at);
}

INLINE float scale_of_row(const char *row, int64_t size, const int int8) {
  float scale = 1.0f;
  if (int8) memcpy(&scale, row + size, SCALE_BYTES);
  return scale;
}

/* Return the largest absolute element of a row less `center`; NaN if one is not finite. */
INLINE float largest_of_row(const char *row, const float *center, float scale, int64_t size, const int int8) {
  Vector top[16 / WIDTH], zeros[16 / WIDTH]; /* 0 * x is NaN where x is not finite */
  UNROLL for (int p = 0; p < 16 / WIDTH; p++) top[p] = zeros[p] = vector_zero();
  for (int64_t e = 0; e < size; e += 16) {
    UNROLL for (int p = 0; p < 16 / WIDTH; p++) {
      const Vector x =
          vector_subtract(load_elements(row, e + p * WIDTH, scale, int8), vector_load(center + e + p * WIDTH));
      top[p] = vector_max(top[p], vector_max(x, vector_subtract(vector_zero(), x)));
      zeros[p] = vector_fma(x, vector_zero(), zeros[p]);
    }
  }
  return max_of_16(top) + sum_of_16(zeros);
}

/* Convert the queries, and transpose them. */
INLINE void convert_queries(State *state) {
  const LongTile *tile = state->tile;
  const Vector scale = vector_of(tile->scale * LOG2_E);
  for (int64_t v = 0; v < state->vectors; v++) {
    float *queries = state->queries + v * WIDTH;
    Vector top = vector_of(FLT_MIN), zeros = vector_zero();
    for (int64_t e = 0; e < tile->size; e += WIDTH) {
      Vector r[WIDTH];
      load_transposed(r, tile->vectors + v * WIDTH, e, (int)smaller(tile->count - v * WIDTH, WIDTH));
      for (int i = 0; i < WIDTH; i++) {
        const Vector x = vector_multiply(r[i], scale);
        vector_store(queries + (e + i) * LANES, x);
        top = vector_max(top, vector_max(x, vector_subtract(vector_zero(), x)));
        zeros = vector_fma(x, vector_zero(), zeros);
      }
    }
    state->scales[v] = vector_add(vector_multiply(top, vector_of(1.0f / state->largest)), zeros);
    const Vector inverse = vector_divide(vector_of(state->largest), top);
    for (int64_t e = 0; e < tile->size; e += 2) {
      const Vector low = vector_load(queries + e * LANES), high = vector_load(queries + (e + 1) * LANES);
      ints_store(state->pairs + e / 2 * LANES + v * WIDTH,
                 pairs_of(nearest(vector_multiply(low, inverse)), nearest(vector_multiply(high, inverse))));
    }
  }
}

/* Convert a block of `count` keys less its first one; the others are 0. */
INLINE void convert_keys(State *state, int64_t first, int64_t count, const int int8) {
  const LongTile *tile = state->tile;
  const int64_t size = tile->size, bytes = cache_row_bytes(size, int8);
  const char *row = tile->keys + first * bytes;
  /* Where there is a window, a query may not see the first one. */
  for (int64_t e = 0; e < size; e += WIDTH)
    vector_store(state->center + e,
                 tile->window > 0 ? vector_zero() : load_elements(row, e, scale_of_row(row, size, int8), int8));
  for (int64_t key = 0; key < count; key++, row += bytes) {
    const float scale = scale_of_row(row, size, int8);
    const float top = largest_of_row(row, state->center, scale, size, int8);
    const Vector inverse = vector_of(top > FLT_MIN ? state->largest / top : 0.0f);
    for (int64_t e = 0; e < size; e += WIDTH) {
      const Vector x = vector_subtract(load_elements(row, e, scale, int8), vector_load(state->center + e));
      store_int16(state->keys + key * size + e, nearest(vector_multiply(x, inverse)));
    }
    state->key_scales[key] = top / state->largest;
  }
  memset(state->keys + count * size, 0, (KEY_BLOCK - count) * size * sizeof(int16_t));
  for (int64_t key = count; key < KEY_BLOCK; key++) state->key_scales[key] = 0.0f;
}

/* Return the least power of two that is not below x, which is normal and not large. */
static inline float power_above(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7FFFFF) & 0x7F800000;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* Return log2 of a power of two. */
static inline float exponent_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (float)((int32_t)(bits >> 23) - 127);
}

/* Convert a block of `count` values; the others are 0. */
INLINE void convert_values(State *state, int64_t first, int64_t count, const int int8) {
  static const float none[MAX_HEAD_SIZE];
  const LongTile *tile = state->tile;
  const int64_t size = tile->size, bytes = cache_row_bytes(size, int8);
  const char *rows = tile->values + first * bytes;
  for (int64_t key = 0; key < KEY_BLOCK; key++) {
    float top = LEAST_VALUE;
    if (key < count) {
      const char *row = rows + key * bytes;
      const float found = largest_of_row(row, none, scale_of_row(row, size, int8), size, int8);
      top = found <= LEAST_VALUE ? LEAST_VALUE : found;
    }
    const int finite = top <= FLT_MAX;
    const float scale = finite ? power_above(top / LARGEST_VALUE) : 1.0f;
    state->inverses[key] = 1.0f / scale;
    state->exponents[key] = finite ? exponent_of(scale) : NAN;
  }
  for (int64_t key = 0; key < KEY_BLOCK; key += 2) {
    const char *low = rows + key * bytes, *high = low + bytes;
    int32_t *to = state->values + key / 2 * size;
    const float first_scale = key < count ? scale_of_row(low, size, int8) : 0.0f;
    const float second_scale = key + 1 < count ? scale_of_row(high, size, int8) : 0.0f;
    for (int64_t e = 0; e < size; e += WIDTH) {
      Vector a = vector_zero(), b = vector_zero();
      if (key < count) a = load_elements(low, e, first_scale, int8);
      if (key + 1 < count) b = load_elements(high, e, second_scale, int8);
      ints_store(to + e, pairs_of(nearest(vector_multiply(a, vector_of(state->inverses[key]))),
                                  nearest(vector_multiply(b, vector_of(state->inverses[key + 1])))));
    }
  }
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

INLINE Ints pair_at(const void *at) {
  int32_t word;
  memcpy(&word, at, sizeof word);
  return ints_of(word);
}

/* scores = keys · queries for the vectors of a group from `begin` on and the first keys of a block, a multiple of LONG_KEYS. */
INLINE void score_group(State *state, int64_t begin, int64_t keys, const int vectors) {
  const int64_t size = state->tile->size;
  const int32_t *queries = state->pairs + begin * WIDTH;
  for (int64_t key = 0; key < keys; key += LONG_KEYS) {
    const int16_t *rows = state->keys + key * size;
    Ints sum[LONG_KEYS][GROUP];
    UNROLL for (int k = 0; k < LONG_KEYS; k++) UNROLL for (int v = 0; v < vectors; v++) sum[k][v] = ints_zero();
    for (int64_t e = 0; e < size; e += 2) {
      Ints query[GROUP];
      UNROLL for (int v = 0; v < vectors; v++) query[v] = ints_load(queries + e / 2 * LANES + v * WIDTH);
      UNROLL for (int k = 0; k < LONG_KEYS; k++) {
        const Ints pair = pair_at(rows + k * size + e);
        UNROLL for (int v = 0; v < vectors; v++) sum[k][v] = add_products(sum[k][v], query[v], pair);
      }
    }
    UNROLL for (int k = 0; k < LONG_KEYS; k++) UNROLL for (int v = 0; v < vectors; v++)
        ints_store(state->scores + (key + k) * GROUP_LANES + v * WIDTH, sum[k][v]);
  }
}

/* sums = factors * sums + gains * values · weights for the vectors of a group and the first keys of a block, an even number. */
INLINE void add_group(State *state, int64_t begin, int64_t keys, const int vectors) {
  const int64_t size = state->tile->size;
  for (int64_t e = 0; e < size; e += LONG_KEYS) {
    Ints sum[LONG_KEYS][GROUP];
    UNROLL for (int c = 0; c < LONG_KEYS; c++) UNROLL for (int v = 0; v < vectors; v++) sum[c][v] = ints_zero();
    for (int64_t j = 0; j < keys / 2; j++) {
      Ints weight[GROUP];
      UNROLL for (int v = 0; v < vectors; v++) weight[v] = ints_load(state->weights + j * GROUP_LANES + v * WIDTH);
      UNROLL for (int c = 0; c < LONG_KEYS; c++) {
        const Ints pair = pair_at(state->values + j * size + e + c);
        UNROLL for (int v = 0; v < vectors; v++) sum[c][v] = add_products(sum[c][v], weight[v], pair);
      }
    }
    /* Through memory, where the scores were: if they are converted here, GCC 12 copies each sum from register to register. */
    UNROLL for (int c = 0; c < LONG_KEYS; c++) UNROLL for (int v = 0; v < vectors; v++)
        ints_store(state->scores + c * GROUP_LANES + v * WIDTH, sum[c][v]);
    for (int c = 0; c < LONG_KEYS; c++) {
      for (int v = 0; v < vectors; v++) {
        float *at = state->sums + (e + c) * LANES + (begin + v) * WIDTH;
        const Vector whole = floats_of(ints_load(state->scores + c * GROUP_LANES + v * WIDTH));
        vector_store(at, vector_fma(whole, state->gains[v], vector_multiply(vector_load(at), state->factors[v])));
      }
    }
  }
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* Return what a vector of queries has with the center of the keys. */
INLINE Vector score_center(const State *state, int64_t v) {
  Vector sum[2] = {vector_zero(), vector_zero()};
  for (int64_t e = 0; e < state->tile->size; e += 2)
    UNROLL for (int i = 0; i < 2; i++) sum[i] =
        vector_fma(vector_load(state->queries + (e + i) * LANES + v * WIDTH), vector_of(state->center[e + i]), sum[i]);
  return vector_add(sum[0], sum[1]);
}

/* Turn the scores of a vector of queries, the group's vector `at`, into weights. */
INLINE void softmax_of_vector(State *state, int64_t v, int at, int64_t first, int64_t keys, int masked) {
  const LongTile *tile = state->tile;
  int32_t *scores = state->scores + at * WIDTH;
  const Vector scale = state->scales[v];
  Vector begin = vector_zero(), end = vector_zero(), top[2] = {vector_of(-INFINITY), vector_of(-INFINITY)};
  if (masked) seen_keys(tile->positions, tile->count, tile->window, v * WIDTH, first, &begin, &end);
  for (int64_t key = 0; key < keys; key += 2) {
    UNROLL for (int i = 0; i < 2; i++) {
      const Vector whole = floats_of(ints_load(scores + (key + i) * GROUP_LANES));
      const Vector factor = vector_multiply(scale, vector_of(state->key_scales[key + i]));
      Vector score = vector_fma(whole, factor, vector_of(state->exponents[key + i]));
      if (masked) score = mask_score(score, begin, end, key + i);
      ints_store(scores + (key + i) * GROUP_LANES, words_of(score));
      top[i] = vector_max(top[i], score);
    }
  }
  const Vector largest = vector_max(top[0], top[1]);
  const Vector level = vector_add(largest, score_center(state, v)), before = state->references[v];
  const Vector now = vector_max(before, level), less = finite_or_zero(now);
  const Vector zero = vector_subtract(finite_or_zero(largest), vector_of((float)WEIGHT_BITS));
  Vector total[2] = {vector_zero(), vector_zero()};
  for (int64_t key = 0; key < keys; key += 2) {
    Ints whole[2];
    UNROLL for (int i = 0; i < 2; i++) {
      const Vector score = float_words(ints_load(scores + (key + i) * GROUP_LANES));
      const Vector weight = vector_power_of_two(vector_subtract(score, zero));
      total[i] = vector_fma(weight, vector_of(state->inverses[key + i]), total[i]);
      whole[i] = nearest(weight);
    }
    ints_store(state->weights + key / 2 * GROUP_LANES + at * WIDTH, pairs_of(whole[0], whole[1]));
  }
  state->factors[at] = vector_power_of_two(vector_subtract(before, less));
  state->gains[at] = vector_power_of_two(vector_subtract(level, less));
  state->totals[v] = vector_fma(vector_add(total[0], total[1]), state->gains[at],
                                vector_multiply(state->totals[v], state->factors[at]));
  state->references[v] = now;
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

/* Attend from a group of vectors of queries to a block of keys. */
INLINE void attend_group(State *state, int64_t begin, int64_t first, const int vectors) {
  const LongTile *tile = state->tile;
  const int64_t lowest = tile->positions[begin * WIDTH];
  const int64_t highest = tile->positions[smaller((begin + vectors) * WIDTH, tile->count) - 1];
  if (first > highest || (tile->window > 0 && first + KEY_BLOCK <= lowest - tile->window + 1)) return;
  const int64_t keys = smaller((highest - first + LONG_KEYS) / LONG_KEYS * LONG_KEYS, KEY_BLOCK);
  const int masked = lowest < first + KEY_BLOCK - 1 || (tile->window > 0 && first <= highest - tile->window);
  score_group(state, begin, keys, vectors);
  for (int i = 0; i < vectors; i++) softmax_of_vector(state, begin + i, i, first, keys, masked);
  add_group(state, begin, keys, vectors);
}

INLINE void attend_blocks(State *state, const int int8) {
  const LongTile *tile = state->tile;
  for (int64_t first = tile->from / KEY_BLOCK * KEY_BLOCK; first < tile->to; first += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, tile->to - first);
    convert_keys(state, first, count, int8);
    convert_values(state, first, count, int8);
    for (int64_t v = 0; v < state->vectors; v += GROUP) {
      switch (state->vectors - v) {
        case 1: attend_group(state, v, first, 1); break;
        case 2: attend_group(state, v, first, 2); break;
        default: attend_group(state, v, first, GROUP); break;
      }
    }
  }
}

TARGET static int attend_integers(const LongTile *tile) {
  const int64_t size = tile->size;
  const int64_t words =
      2 * size * LANES + size / 2 * LANES + size / 2 * KEY_BLOCK + PAIRS * size + (KEY_BLOCK + PAIRS) * GROUP_LANES;
  State *state = allocate_aligned(sizeof(State) + words * sizeof(int32_t));
  if (state == NULL) return -1;
  state->tile = tile;
  state->vectors = (tile->count + WIDTH - 1) / WIDTH;
  state->largest = floorf(sqrtf((float)(INT32_MAX / size)));
  state->queries = (float *)(state + 1);
  state->sums = state->queries + size * LANES;
  state->pairs = (int32_t *)(state->sums + size * LANES);
  state->keys = (int16_t *)(state->pairs + size / 2 * LANES);
  state->values = (int32_t *)(state->keys + KEY_BLOCK * size);
  state->scores = state->values + PAIRS * size;
  state->weights = state->scores + KEY_BLOCK * GROUP_LANES;
  memset(state->sums, 0, size * LANES * sizeof(float));
  for (int64_t v = 0; v < state->vectors; v++) {
    state->references[v] = vector_of(-INFINITY);
    state->totals[v] = vector_zero();
  }
  convert_queries(state);
  if (tile->int8) attend_blocks(state, 1);
  else attend_blocks(state, 0);
  divide_by_totals(tile, state->sums, WIDTH, LANES, state->totals);
  free_aligned(state);
  return 0;
}
