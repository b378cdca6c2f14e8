#include "attention.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

enum {
  KEYS = 64,         /* keys of a piece; pieces start at multiples of it, whatever is asked */
  ROWS = 64,         /* rows (token, head of a group) that a task takes together, at most */
  ROWS_WANTED = 48,  /* enough rows that turning the keys costs little beside the products */
  SIX = 6,           /* rows whose sums are in registers together, four vectors of each */
  SPLIT = 512,       /* keys of a part, where one token's attention is divided among threads */
};

int attention_supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* e^x for x <= 0: x = n ln 2 + r, e^r by its Taylor series to the sixth power (relative error below 2^-22). */
INLINE __m512 exponential(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 sum = _mm512_set1_ps(1.0f / 720);
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.0f / 120));
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.0f / 24));
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.0f / 6));
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(0.5f));
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.0f));
  sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(sum, n);
}

/* What a task keeps: the state of the rows that it attends for. */
typedef struct {
  _Alignas(64) float turned[MAX_HEAD_SIZE * KEYS]; /* [E, KEYS], a piece's keys */
  _Alignas(64) float scores[ROWS * KEYS];          /* then their exponentials */
  _Alignas(64) float sums[ROWS * MAX_HEAD_SIZE];   /* [rows, E], of values by weight */
  float maxima[ROWS], totals[ROWS], factors[ROWS];
  const float *queries[ROWS];
  int64_t positions[ROWS];
} State;

/* 16 keys of 16 elements, turned. */
INLINE void turn(const float *from, int64_t stride, int count, float *to) {
  __m512 r[16], t[16];
  for (int i = 0; i < 16; i++) r[i] = i < count ? _mm512_loadu_ps(from + i * stride) : _mm512_setzero_ps();
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
    r[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xDD);
  }
  for (int i = 0; i < 4; i++) {
    _mm512_store_ps(to + i * KEYS, _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88));
    _mm512_store_ps(to + (8 + i) * KEYS, _mm512_shuffle_f32x4(t[i], t[8 + i], 0xDD));
    _mm512_store_ps(to + (4 + i) * KEYS, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88));
    _mm512_store_ps(to + (12 + i) * KEYS, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xDD));
  }
}

/* scores[rows, KEYS] = queries · turned keys, for `rows` rows from `row`. */
INLINE void score_rows(State *state, int row, const int rows, int64_t head_size, __m512 scale) {
  __m512 sum[SIX][4];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < 4; v++) sum[r][v] = _mm512_setzero_ps();
  for (int64_t e = 0; e < head_size; e++) {
    __m512 keys[4];
    for (int v = 0; v < 4; v++) keys[v] = _mm512_load_ps(state->turned + e * KEYS + v * 16);
    for (int r = 0; r < rows; r++) {
      const __m512 query = _mm512_set1_ps(state->queries[row + r][e]);
      for (int v = 0; v < 4; v++) sum[r][v] = _mm512_fmadd_ps(query, keys[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < 4; v++)
      _mm512_store_ps(state->scores + (row + r) * KEYS + v * 16, _mm512_mul_ps(sum[r][v], scale));
}

/* sums[rows, width columns from `column`] = factors * sums + scores · values[count, E]. */
INLINE void add_values(State *state, int row, const int rows, const float *values, int64_t head_size, int64_t count,
                       int64_t column, const int vectors) {
  __m512 sum[SIX][4];
  for (int r = 0; r < rows; r++) {
    const __m512 factor = _mm512_set1_ps(state->factors[row + r]);
    const float *sums = state->sums + (row + r) * head_size + column;
    for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_mul_ps(_mm512_load_ps(sums + v * 16), factor);
  }
  for (int64_t key = 0; key < count; key++) {
    __m512 value[4];
    for (int v = 0; v < vectors; v++) value[v] = _mm512_loadu_ps(values + key * head_size + column + v * 16);
    for (int r = 0; r < rows; r++) {
      const __m512 weight = _mm512_set1_ps(state->scores[(row + r) * KEYS + key]);
      for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(weight, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++)
      _mm512_store_ps(state->sums + (row + r) * head_size + column + v * 16, sum[r][v]);
}

/* The scores of one row become weights less a running maximum; what was summed before is to be scaled by a factor. */
INLINE void weigh(State *state, int row, int64_t first, int64_t window) {
  float *scores = state->scores + row * KEYS;
  const int64_t last = state->positions[row] - first; /* of the piece's keys that the row sees */
  const int64_t begin = window > 0 ? last - window + 1 : 0;
  __m512 s[4];
  __m512 top = _mm512_set1_ps(-INFINITY);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i low = _mm512_set1_epi32((int)larger(begin, 0)), high = _mm512_set1_epi32((int)smaller(last, KEYS));
  for (int v = 0; v < 4; v++) {
    const __m512i key = _mm512_add_epi32(lane, _mm512_set1_epi32(v * 16));
    const __mmask16 seen = _mm512_cmple_epi32_mask(key, high) & _mm512_cmpge_epi32_mask(key, low);
    s[v] = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), _mm512_load_ps(scores + v * 16));
    top = _mm512_max_ps(top, s[v]);
  }
  const float before = state->maxima[row], now = fmaxf(before, _mm512_reduce_max_ps(top));
  if (now == -INFINITY) { /* nothing to see in this piece or before it */
    state->factors[row] = 1.0f;
    for (int v = 0; v < 4; v++) _mm512_store_ps(scores + v * 16, _mm512_setzero_ps());
    return;
  }
  __m512 total = _mm512_setzero_ps();
  for (int v = 0; v < 4; v++) {
    const __mmask16 seen = _mm512_cmp_ps_mask(s[v], _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
    const __m512 weight = _mm512_maskz_mov_ps(seen, exponential(_mm512_sub_ps(s[v], _mm512_set1_ps(now))));
    _mm512_store_ps(scores + v * 16, weight);
    total = _mm512_add_ps(total, weight);
  }
  const float factor = before == now ? 1.0f : before == -INFINITY ? 0.0f : expf(before - now);
  state->factors[row] = factor;
  state->totals[row] = state->totals[row] * factor + _mm512_reduce_add_ps(total);
  state->maxima[row] = now;
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

/* All rows of `state` over keys from .. to of one head, [C, E] each. */
TARGET static void attend_rows(State *state, int rows, const Attention *a, const float *keys, const float *values,
                               int64_t from, int64_t to) {
  const int64_t size = a->head_size;
  const __m512 scale = _mm512_set1_ps(a->scale);
  for (int row = 0; row < rows; row++) {
    state->maxima[row] = -INFINITY;
    state->totals[row] = 0.0f;
  }
  memset(state->sums, 0, rows * size * sizeof(float));
  for (int64_t first = from / KEYS * KEYS; first < to; first += KEYS) {
    const int64_t count = smaller(KEYS, to - first);
    for (int64_t key = 0; key < KEYS; key += 16)
      for (int64_t e = 0; e < size; e += 16)
        turn(keys + (first + key) * size + e, size, (int)smaller(16, count - key), state->turned + e * KEYS + key);
    for (int row = 0; row < rows; row += SIX) {
#define SCORE(R) score_rows(state, row, R, size, scale)
      BY_ROWS(rows - row, SCORE)
#undef SCORE
    }
    for (int row = 0; row < rows; row++) weigh(state, row, first, a->window);
    for (int64_t column = 0; column < size; column += 64) {
      for (int row = 0; row < rows; row += SIX) {
#define FOUR(R) add_values(state, row, R, values + first * size, size, count, column, 4)
#define THREE(R) add_values(state, row, R, values + first * size, size, count, column, 3)
#define TWO(R) add_values(state, row, R, values + first * size, size, count, column, 2)
#define ONE(R) add_values(state, row, R, values + first * size, size, count, column, 1)
        switch (smaller(64, size - column) / 16) {
          case 4: BY_ROWS(rows - row, FOUR) break;
          case 3: BY_ROWS(rows - row, THREE) break;
          case 2: BY_ROWS(rows - row, TWO) break;
          case 1: BY_ROWS(rows - row, ONE) break;
        }
      }
    }
  }
}

typedef struct {
  const Attention *a;
  int64_t tile, tiles; /* tokens of a task, tasks of a row of the batch and a head */
  int64_t parts;       /* most parts of one token's keys */
  float *partial;      /* [B * K, parts, G, E + 2]: sums, maximum, total */
  int failed;
} Job;

/* The first key that any of the tokens from position `position` on sees. */
static int64_t first_key(const Attention *a, int64_t position) {
  return a->window > 0 ? larger(position - a->window + 1, 0) : 0;
}

TARGET static void attend_tile(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  const int64_t head = (int64_t)task / job->tiles, b = head / a->kv_heads, kv_head = head % a->kv_heads;
  /* The longest parts first: the last ones then finish at about the same time. */
  const int64_t token = (job->tiles - 1 - (int64_t)task % job->tiles) * job->tile;
  const int64_t tokens = smaller(job->tile, a->tokens - token);
  State *state = aligned_alloc(64, sizeof *state);
  if (state == NULL) {
    job->failed = 1;
    return;
  }
  int rows = 0;
  for (int64_t t = token; t < token + tokens; t++)
    for (int64_t g = 0; g < group; g++, rows++) {
      state->queries[rows] = a->queries + ((b * a->tokens + t) * a->heads + kv_head * group + g) * size;
      state->positions[rows] = a->past[b] + t;
    }
  const int64_t offset = head * a->capacity * size;
  attend_rows(state, rows, a, a->keys + offset, a->values + offset, first_key(a, a->past[b] + token),
              a->past[b] + token + tokens);
  for (int row = 0; row < rows; row++) {
    const __m512 inverse = _mm512_set1_ps(1.0f / state->totals[row]);
    float *to = a->output + (state->queries[row] - a->queries);
    for (int64_t e = 0; e < size; e += 16)
      _mm512_storeu_ps(to + e, _mm512_mul_ps(_mm512_load_ps(state->sums + row * size + e), inverse));
  }
  free(state);
}

/* One part of one token's keys, for all heads of a group. */
TARGET static void attend_part(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  const int64_t head = (int64_t)task / job->parts, part = (int64_t)task % job->parts;
  const int64_t b = head / a->kv_heads, kv_head = head % a->kv_heads, position = a->past[b];
  const int64_t from = larger(part * SPLIT, first_key(a, position)), to = smaller((part + 1) * SPLIT, position + 1);
  if (from >= to) return;
  State *state = aligned_alloc(64, sizeof *state);
  if (state == NULL) {
    job->failed = 1;
    return;
  }
  for (int64_t g = 0; g < group; g++) {
    state->queries[g] = a->queries + (b * a->heads + kv_head * group + g) * size;
    state->positions[g] = position;
  }
  const int64_t offset = head * a->capacity * size;
  attend_rows(state, (int)group, a, a->keys + offset, a->values + offset, from, to);
  for (int64_t g = 0; g < group; g++) {
    float *out = job->partial + ((head * job->parts + part) * group + g) * (size + 2);
    memcpy(out, state->sums + g * size, size * sizeof(float));
    out[size] = state->maxima[g];
    out[size + 1] = state->totals[g];
  }
  free(state);
}

static void merge_parts(const Job *job) {
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  for (int64_t head = 0; head < a->batch * a->kv_heads; head++) {
    const int64_t position = a->past[head / a->kv_heads];
    const int64_t from = first_key(a, position) / SPLIT, to = position / SPLIT + 1;
    for (int64_t g = 0; g < group; g++) {
      const float *parts = job->partial + (head * job->parts * group + g) * (size + 2);
      const int64_t stride = group * (size + 2);
      float top = -INFINITY, total = 0.0f;
      for (int64_t part = from; part < to; part++) top = fmaxf(top, parts[part * stride + size]);
      float *out = a->output + ((head / a->kv_heads) * a->heads + head % a->kv_heads * group + g) * size;
      memset(out, 0, size * sizeof(float));
      for (int64_t part = from; part < to; part++) {
        const float *sums = parts + part * stride, factor = expf(sums[size] - top);
        total += sums[size + 1] * factor;
        for (int64_t e = 0; e < size; e++) out[e] += sums[e] * factor;
      }
      const float inverse = 1.0f / total;
      for (int64_t e = 0; e < size; e++) out[e] *= inverse;
    }
  }
}

int attend(const Attention *a, ParallelFor parallel, void *context) {
  const int64_t group = a->heads / a->kv_heads, heads = a->batch * a->kv_heads;
  Job job = {.a = a};
  if (a->tokens > 1) {
    job.tile = smaller(larger(ROWS_WANTED / group, 1), a->tokens);
    job.tiles = ceil_div(a->tokens, job.tile);
    parallel(context, attend_tile, heads * job.tiles, &job);
    return job.failed ? -1 : 0;
  }
  int64_t longest = 0;
  for (int64_t b = 0; b < a->batch; b++) longest = larger(longest, a->past[b] + 1);
  job.parts = ceil_div(longest, SPLIT);
  job.partial = malloc(heads * job.parts * group * (a->head_size + 2) * sizeof(float));
  if (job.partial == NULL) return -1;
  parallel(context, attend_part, heads * job.parts, &job);
  if (!job.failed) merge_parts(&job);
  free(job.partial);
  return job.failed ? -1 : 0;
}

#else

int attention_supported(void) { return 0; }

int attend(const Attention *attention, ParallelFor parallel, void *context) {
  return (void)attention, (void)parallel, (void)context, -1;
}

#endif
