/* Attention of long sequences on AMX: products of bfloat16, summed in float32.
 *
 * Queries and keys are sums of two bfloat16 each, and a product of two numbers is three products: high * high + high * low +
 * low * high. int8 keys are bfloat16, and a product is two; their scales multiply scores in float32. Weights and values are
 * rounded to one bfloat16 each: an error of 2^-9 of a weight or a value is averaged over the keys, where that of a score would
 * be multiplied by the largest score.
 *
 * TDPBF16PS adds A · B to a 16 x 16 tile, where A has 16 rows of STEP elements, and B has STEP / 2 rows of 16 pairs. Scores
 * are keys · queries and sums are values · weights, so that the lanes of a vector are queries, as in prefill.h: no maximum or
 * sum runs over lanes, and weights become an operand without a transposition. Element i of A's row is paired with element
 * i + 16. A unit is 32 queries, and 2 x 2 tiles are computed at once, so that each load serves two instructions.
 *
 * What a query gets depends on its keys alone, in blocks that start at multiples of KEY_BLOCK: a key that it does not see adds
 * 0 to its sums.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS; G. Henry, P. Tang, A. Heinecke, Leveraging
 * the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, arXiv:1904.06376.
 */
#include "attention/long_tile.h"
#include "common/processor.h"

#if HAVE_AMX

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,amx-tile,amx-bf16")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include "common/simd512.h"

#include "attention/bfloat16.h"
#include "common/tiles.h"

enum {
  STEP = 32,                 /* elements that an instruction multiplies */
  UNIT = 2,                  /* vectors of queries */
  HALVES = KEY_BLOCK / STEP, /* of a block of keys */
  VECTORS = LONG_ROWS / WIDTH,
  KEY_TILES = KEY_BLOCK / TILE_ROWS, /* of a block */
};

/* Weights stay below 2^LARGEST_EXPONENT: the reference that is subtracted from scores follows their maximum only then, since
 * each change of it rescales the sums. */
#define LARGEST_EXPONENT 8.0f

/* An operand: the tile of high parts, and that of low parts. */
typedef struct {
  _Alignas(64) uint32_t high[TILE_ROWS][TILE_ROWS], low[TILE_ROWS][TILE_ROWS];
} Operand;

/* An operand of rounded numbers. */
typedef struct {
  _Alignas(64) uint32_t words[TILE_ROWS][TILE_ROWS];
} Rounded;

typedef struct {
  const LongTile *tile;
  int64_t steps;                                        /* of E, rounded up */
  int64_t vectors;                                      /* of queries, an even number */
  Operand *queries;                                     /* [vectors, steps] */
  Operand *keys;                                        /* [KEY_TILES, steps] */
  Rounded *values;                                      /* [HALVES, 2 * steps], transposed */
  Rounded *weights;                                     /* [UNIT, HALVES] */
  float *scores;                                        /* [UNIT, KEY_BLOCK, WIDTH] */
  float *sums;                                          /* [vectors, STEP * steps, WIDTH] */
  Vector references[VECTORS], totals[VECTORS];          /* what is subtracted from scores; the sums of weights */
  float key_scales[KEY_BLOCK], value_scales[KEY_BLOCK]; /* of int8 */
} State;

/* ---- operands ----------------------------------------------------------------------------------------------------- */

/* Load WIDTH elements of a row from `at` on, 0 beyond its end. */
INLINE Vector load_elements(const char *row, int64_t at, int64_t size, const int int8) {
  if (at >= size) return vector_zero();
  return int8 ? vector_from_int8((const int8_t *)row + at) : vector_load((const float *)row + at);
}

INLINE void store_words(uint32_t to[TILE_ROWS], __m512i words) { _mm512_store_si512(to, words); }

INLINE void transpose_to(uint32_t to[TILE_ROWS][TILE_ROWS], __m512i r[TILE_ROWS]) {
  transpose_words(r);
  UNROLL for (int i = 0; i < TILE_ROWS; i++) store_words(to[i], r[i]);
}

/* Convert the queries, multiplied by the scale of the scores and log2 e. */
INLINE void convert_queries(State *state) {
  const LongTile *tile = state->tile;
  const Vector scale = vector_of(tile->scale * LOG2_E);
  for (int64_t v = 0; v < state->vectors; v++) {
    for (int64_t step = 0; step < state->steps; step++) {
      __m512i high[TILE_ROWS], low[TILE_ROWS];
      for (int64_t i = 0; i < TILE_ROWS; i++) {
        high[i] = low[i] = _mm512_setzero_si512();
        if (v * WIDTH + i >= tile->count) continue;
        const char *row = (const char *)tile->vectors[v * WIDTH + i];
        const Split split = split_pair(vector_multiply(load_elements(row, step * STEP, tile->size, 0), scale),
                                       vector_multiply(load_elements(row, step * STEP + WIDTH, tile->size, 0), scale));
        high[i] = split.high;
        low[i] = split.low;
      }
      Operand *to = state->queries + v * state->steps + step;
      transpose_to(to->high, high);
      transpose_to(to->low, low);
    }
  }
}

INLINE void load_scales(const char *rows, int64_t count, const LongTile *tile, float scales[KEY_BLOCK]) {
  memset(scales, 0, KEY_BLOCK * sizeof(float));
  for (int64_t key = 0; key < count; key++)
    memcpy(&scales[key], rows + key * cache_row_bytes(tile->size, 1) + tile->size, SCALE_BYTES);
}

/* Convert a block of `count` keys; the others are 0. */
INLINE void convert_keys(State *state, int64_t first, int64_t count, const int int8) {
  const LongTile *tile = state->tile;
  const int64_t bytes = cache_row_bytes(tile->size, int8);
  const char *rows = tile->keys + first * bytes;
  for (int64_t key = 0; key < KEY_BLOCK; key++) {
    Operand *to = state->keys + key / TILE_ROWS * state->steps;
    for (int64_t step = 0; step < state->steps; step++, to++) {
      Vector a = vector_zero(), b = vector_zero();
      if (key < count) {
        a = load_elements(rows + key * bytes, step * STEP, tile->size, int8);
        b = load_elements(rows + key * bytes, step * STEP + WIDTH, tile->size, int8);
      }
      const Split split = int8 ? (Split){.high = exact_pair(a, b)} : split_pair(a, b);
      store_words(to->high[key % TILE_ROWS], split.high);
      if (!int8) store_words(to->low[key % TILE_ROWS], split.low);
    }
  }
  if (int8) load_scales(rows, count, tile, state->key_scales);
}

/* Convert a block of `count` values and transpose them; the others are 0. */
INLINE void convert_values(State *state, int64_t first, int64_t count, const int int8) {
  const LongTile *tile = state->tile;
  const int64_t bytes = cache_row_bytes(tile->size, int8);
  const char *rows = tile->values + first * bytes;
  Rounded *to = state->values;
  for (int64_t half = 0; half < HALVES; half++) {
    for (int64_t e = 0; e < state->steps * STEP; e += WIDTH, to++) {
      __m512i words[TILE_ROWS];
      UNROLL for (int i = 0; i < TILE_ROWS; i++) {
        const int64_t key = half * STEP + i, other = key + WIDTH;
        const Vector a = key < count ? load_elements(rows + key * bytes, e, tile->size, int8) : vector_zero();
        const Vector b = other < count ? load_elements(rows + other * bytes, e, tile->size, int8) : vector_zero();
        words[i] = int8 ? exact_pair(a, b) : rounded_pair(a, b);
      }
      transpose_to(to->words, words);
    }
  }
  if (int8) load_scales(rows, count, tile, state->value_scales);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

typedef const uint32_t (*Tile)[TILE_ROWS];

INLINE void load_a(Tile first, Tile second) {
  _tile_loadd(4, first, TILE_LINE);
  _tile_loadd(5, second, TILE_LINE);
}

INLINE void load_b(Tile first, Tile second) {
  _tile_loadd(6, first, TILE_LINE);
  _tile_loadd(7, second, TILE_LINE);
}

/* Add the products of tiles 4 and 5 with 6 and 7 to tiles 0 to 3. */
INLINE void multiply_tiles(void) {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

/* Add the products of operands a[0], a[1] with b[0], b[1] to tiles 0 to 3. `exact`: a has no low parts. */
INLINE void multiply_operands(const Operand *const a[2], const Operand *const b[2], const int exact) {
  load_b(b[0]->high, b[1]->high);
  if (!exact) {
    load_a(a[0]->low, a[1]->low);
    multiply_tiles();
  }
  load_a(a[0]->high, a[1]->high);
  multiply_tiles();
  load_b(b[0]->low, b[1]->low);
  multiply_tiles();
}

/* scores = keys · queries for a unit and the first halves of a block. */
INLINE void score_unit(State *state, int64_t v, int halves, const int int8) {
  TILE_FENCE;
  for (int64_t half = 0; half < halves; half++) {
    const Operand *keys = state->keys + half * 2 * state->steps, *queries = state->queries + v * state->steps;
    float *to = state->scores + half * STEP * WIDTH;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < state->steps; step++) {
      const Operand *const a[2] = {keys + step, keys + state->steps + step};
      const Operand *const b[2] = {queries + step, queries + state->steps + step};
      multiply_operands(a, b, int8);
    }
    _tile_stored(0, to, TILE_LINE);
    _tile_stored(1, to + KEY_BLOCK * WIDTH, TILE_LINE);
    _tile_stored(2, to + TILE_ROWS * WIDTH, TILE_LINE);
    _tile_stored(3, to + (KEY_BLOCK + TILE_ROWS) * WIDTH, TILE_LINE);
  }
  TILE_FENCE;
}

/* sums += values · weights for a unit and the first halves of a block. */
INLINE void add_unit(State *state, int64_t v, int halves) {
  const int64_t tiles = 2 * state->steps;
  TILE_FENCE;
  for (int64_t t = 0; t < tiles; t += 2) {
    float *first = state->sums + (v * tiles + t) * TILE_ROWS * WIDTH, *second = first + tiles * TILE_ROWS * WIDTH;
    _tile_loadd(0, first, TILE_LINE);
    _tile_loadd(1, second, TILE_LINE);
    _tile_loadd(2, first + TILE_ROWS * WIDTH, TILE_LINE);
    _tile_loadd(3, second + TILE_ROWS * WIDTH, TILE_LINE);
    for (int64_t half = 0; half < halves; half++) {
      const Rounded *values = state->values + half * tiles + t;
      load_a(values[0].words, values[1].words);
      load_b(state->weights[half].words, state->weights[HALVES + half].words);
      multiply_tiles();
    }
    _tile_stored(0, first, TILE_LINE);
    _tile_stored(1, second, TILE_LINE);
    _tile_stored(2, first + TILE_ROWS * WIDTH, TILE_LINE);
    _tile_stored(3, second + TILE_ROWS * WIDTH, TILE_LINE);
  }
  TILE_FENCE;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* Set scores of keys that a query does not see to -inf. */
INLINE void mask_scores(const State *state, int64_t v, int64_t first, int64_t count, float *scores) {
  const LongTile *tile = state->tile;
  Vector begin, end;
  seen_keys(tile->positions, tile->count, tile->window, v * WIDTH, first, &begin, &end);
  for (int64_t key = 0; key < count; key++)
    vector_store(scores + key * WIDTH, mask_score(vector_load(scores + key * WIDTH), begin, end, key));
}

/* Return 2^x, 0 for -inf: a polynomial for 2^r, r in [0, 1), with a relative error below 2^-22 in float32. At -inf r is 0. */
INLINE Vector vector_exponential(Vector x) {
  static const float terms[] = {1.86713017e-3f, 9.01702978e-3f, 5.57999127e-2f, 2.40164444e-1f, 6.93151295e-1f, 1.0f};
  const Vector r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Vector sum = vector_of(terms[0]);
  UNROLL for (size_t i = 1; i < sizeof terms / sizeof *terms; i++) sum = vector_fma(sum, r, vector_of(terms[i]));
  return _mm512_scalef_ps(sum, x);
}

/* Raise the references of queries whose scores are far above them, and rescale their sums. */
INLINE void follow_maximum(State *state, int64_t v, Vector largest) {
  const Vector before = state->references[v];
  const Mask kept = _mm512_cmp_ps_mask(largest, vector_add(before, vector_of(LARGEST_EXPONENT)), _CMP_NGT_UQ);
  if (kept == 0xFFFF) return;
  const Vector now = vector_select(kept, before, largest);
  const Vector factor = vector_power_of_two(vector_subtract(before, finite_or_zero(now)));
  float *sums = state->sums + v * state->steps * STEP * WIDTH;
  for (int64_t e = 0; e < state->steps * STEP; e++)
    vector_store(sums + e * WIDTH, vector_multiply(vector_load(sums + e * WIDTH), factor));
  state->totals[v] = vector_multiply(state->totals[v], factor);
  state->references[v] = now;
}

/* Turn the scores of `halves` halves of a block into weights. */
INLINE void softmax_of_vector(State *state, int64_t v, int64_t first, int halves, int masked, const int int8) {
  float *scores = state->scores + v % UNIT * KEY_BLOCK * WIDTH;
  const int64_t count = halves * STEP;
  if (int8)
    for (int64_t key = 0; key < count; key++)
      vector_store(scores + key * WIDTH,
                   vector_multiply(vector_load(scores + key * WIDTH), vector_of(state->key_scales[key])));
  if (masked) mask_scores(state, v, first, count, scores);
  Vector top[4], total[2] = {vector_zero(), vector_zero()};
  UNROLL for (int i = 0; i < 4; i++) top[i] = vector_load(scores + i * WIDTH);
  for (int64_t key = 4; key < count; key += 4)
    UNROLL for (int i = 0; i < 4; i++) top[i] = vector_max(top[i], vector_load(scores + (key + i) * WIDTH));
  follow_maximum(state, v, vector_max(vector_max(top[0], top[1]), vector_max(top[2], top[3])));
  const Vector less = finite_or_zero(state->references[v]);
  for (int64_t half = 0; half < halves; half++) {
    Rounded *to = state->weights + v % UNIT * HALVES + half;
    const int64_t from = half * STEP;
#pragma GCC unroll 2
    for (int64_t i = 0; i < TILE_ROWS; i++) {
      const int64_t key = from + i, other = key + TILE_ROWS;
      Vector a = vector_exponential(vector_subtract(vector_load(scores + key * WIDTH), less));
      Vector b = vector_exponential(vector_subtract(vector_load(scores + other * WIDTH), less));
      if (int8) {
        total[0] = vector_add(total[0], a);
        total[1] = vector_add(total[1], b);
        a = vector_multiply(a, vector_of(state->value_scales[key]));
        b = vector_multiply(b, vector_of(state->value_scales[other]));
      } else { /* the sums of what is multiplied, so that the weights of a query add up to 1 */
        a = rounded(a);
        b = rounded(b);
        total[0] = vector_add(total[0], a);
        total[1] = vector_add(total[1], b);
      }
      store_words(to->words[i], int8 ? rounded_pair(a, b) : exact_pair(a, b));
    }
  }
  state->totals[v] = vector_add(state->totals[v], vector_add(total[0], total[1]));
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

/* Attend from a unit of queries to a block of keys. */
INLINE void attend_unit(State *state, int64_t v, int64_t first, const int int8) {
  const LongTile *tile = state->tile;
  const int64_t lowest = tile->positions[v * WIDTH];
  const int64_t highest = tile->positions[smaller((v + UNIT) * WIDTH, tile->count) - 1];
  if (first > highest || (tile->window > 0 && first + KEY_BLOCK <= lowest - tile->window + 1)) return;
  const int halves = highest - first < STEP ? 1 : HALVES;
  const int masked = lowest < first + KEY_BLOCK - 1 || (tile->window > 0 && first <= highest - tile->window);
  score_unit(state, v, halves, int8);
  for (int64_t i = v; i < v + UNIT; i++) softmax_of_vector(state, i, first, halves, masked, int8);
  add_unit(state, v, halves);
}

INLINE void attend_blocks(State *state, const int int8) {
  const LongTile *tile = state->tile;
  for (int64_t first = tile->from / KEY_BLOCK * KEY_BLOCK; first < tile->to; first += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, tile->to - first);
    convert_keys(state, first, count, int8);
    convert_values(state, first, count, int8);
    for (int64_t v = 0; v < state->vectors && v * WIDTH < tile->count; v += UNIT) attend_unit(state, v, first, int8);
  }
}

TARGET int attend_amx(const LongTile *tile) {
  const int64_t steps = (tile->size + STEP - 1) / STEP;
  const int64_t vectors = (tile->count + UNIT * WIDTH - 1) / (UNIT * WIDTH) * UNIT;
  const int64_t operands = vectors * steps + KEY_TILES * steps, rounded = HALVES * 2 * steps + UNIT * HALVES;
  const int64_t floats = (UNIT * KEY_BLOCK + vectors * steps * STEP) * WIDTH;
  char *memory =
      allocate_aligned(sizeof(State) + operands * sizeof(Operand) + rounded * sizeof(Rounded) + floats * sizeof(float));
  if (memory == NULL) return -1;
  State *state = (State *)memory;
  state->tile = tile;
  state->steps = steps;
  state->vectors = vectors;
  state->queries = (Operand *)(memory + sizeof(State));
  state->keys = state->queries + vectors * steps;
  state->values = (Rounded *)(state->keys + KEY_TILES * steps);
  state->weights = state->values + HALVES * 2 * steps;
  state->scores = (float *)(state->weights + UNIT * HALVES);
  state->sums = state->scores + UNIT * KEY_BLOCK * WIDTH;
  memset(state->sums, 0, vectors * steps * STEP * WIDTH * sizeof(float));
  for (int64_t v = 0; v < vectors; v++) {
    state->references[v] = vector_of(-INFINITY);
    state->totals[v] = vector_zero();
  }
  convert_queries(state);
  open_tiles();
  if (tile->int8) attend_blocks(state, 1);
  else attend_blocks(state, 0);
  _tile_release();
  divide_by_totals(tile, state->sums, steps * STEP * WIDTH, WIDTH, state->totals);
  free_aligned(memory);
  return 0;
}

int amx_bfloat16_supported(void) {
  const unsigned needed = HAS_AVX512 | HAS_AMX_BF16;
  return (instruction_sets() & needed) == needed && may_use_tiles();
}

#else

int amx_bfloat16_supported(void) { return 0; }

int attend_amx(const LongTile *tile) { return (void)tile, -1; }

#endif
