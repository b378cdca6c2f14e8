#include "attention/attention.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <math.h>
#include <string.h>

#include "attention/cache.h"
#include "attention/query_tile.h"
#include "common/memory.h"
#include "common/sizes.h"

/* Keys of a part. Threads divide one token's attention by parts; where several tokens are read, one task has all parts. A
 * part begins at a multiple of this position, and parts are merged in order, so that both have the same bits. */
enum { PART_KEYS = 512 };

/* The fastest first. */
static const AttentionFunctions *const known[] = {
#if HAVE_X86
    &amx_attention, &avx512_vnni_attention, &avx512_attention, &avx_vnni_attention, &avx2_attention,
#else
    &neon_attention,
#endif
};

static int is_allowed(const AttentionFunctions *functions) {
  for (int i = 0; i < MAX_NAMES; i++)
    if (functions->names[i] != NULL && instruction_set_allowed(functions->names[i])) return 1;
  return 0;
}

const AttentionFunctions *attention_functions(void) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (is_allowed(known[i]) && known[i]->supported()) return known[i];
  return NULL;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

typedef struct {
  const Attention *a;
  int64_t tiles; /* tasks for each sequence and key head */
  int64_t parts; /* tasks for one token's keys */
  float
      *partial; /* [B * K, parts, G, E + 2]: sums, maximum and total of each query; -inf if it sees none of the keys */
  int failed;
} Job;

/* Return the row of a token's key. */
static int64_t row_of(const Attention *a, int64_t b, int64_t token) {
  return a->past[b] - (a->first != NULL ? a->first[b] : 0) + token;
}

/* Return the first row that a token in this row or a later one sees. */
static int64_t first_seen(const Attention *a, int64_t row) {
  return a->window > 0 ? larger(row - a->window + 1, 0) : 0;
}

/* Return the rows of the first part that are not in the cache. They are whole blocks of keys. */
static int64_t rows_before(const Attention *a, int64_t b) {
  return a->first != NULL ? a->first[b] % PART_KEYS / KEY_BLOCK * KEY_BLOCK : 0;
}

/* Return the token's query, or output, of a key head that this row counts over its [S, G]. `head` counts over sequences and
 * key heads, [B, K]. */
static int64_t query_at(const Attention *a, int64_t head, int64_t row) {
  const int64_t group = a->heads / a->kv_heads, b = head / a->kv_heads, first = head % a->kv_heads * group;
  return ((b * a->tokens + row / group) * a->heads + first + row % group) * a->head_size;
}

/* Select queries from .. to of a key head, and all keys that they see. */
static void select_queries(const Attention *a, int64_t head, int64_t from, int64_t to, QueryTile *queries) {
  const int64_t group = a->heads / a->kv_heads, b = head / a->kv_heads;
  queries->size = a->head_size;
  queries->window = a->window;
  queries->scale = a->scale;
  queries->int8 = a->int8;
  queries->keys = a->keys + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  queries->values = a->values + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  queries->from = first_seen(a, row_of(a, b, from / group));
  queries->to = row_of(a, b, (to - 1) / group) + 1;
  queries->count = (int)(to - from);
  for (int64_t row = from; row < to; row++) {
    queries->vectors[row - from] = a->queries + query_at(a, head, row);
    queries->sums[row - from] = a->output + query_at(a, head, row);
    queries->positions[row - from] = row_of(a, b, row / group);
  }
}

/* Attend from a tile of queries of a long sequence to all their keys. */
static void attend_long_tile(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads;
  const int64_t head = (int64_t)task / job->tiles, tile = job->tiles - 1 - (int64_t)task % job->tiles;
  const int64_t b = head / a->kv_heads, from = tile * a->with->long_rows;
  const int64_t to = smaller(from + a->with->long_rows, a->tokens * group);
  LongTile queries = {
      .size = a->head_size,
      .window = a->window,
      .scale = a->scale,
      .keys = a->keys + head * a->capacity * cache_row_bytes(a->head_size, a->int8),
      .values = a->values + head * a->capacity * cache_row_bytes(a->head_size, a->int8),
      .int8 = a->int8,
      .from = first_seen(a, row_of(a, b, from / group)),
      .to = row_of(a, b, (to - 1) / group) + 1,
      .count = to - from,
  };
  for (int64_t row = from; row < to; row++) {
    queries.vectors[row - from] = a->queries + query_at(a, head, row);
    queries.outputs[row - from] = a->output + query_at(a, head, row);
    queries.positions[row - from] = row_of(a, b, row / group);
  }
  if (a->with->attend_long(&queries) != 0) job->failed = 1;
}

static void attend_queries(Job *job, QueryTile *queries) {
  const AttentionFunctions *with = job->a->with;
  if ((queries->count > DECODE_ROWS ? with->prefill : with->decode)(queries) != 0) job->failed = 1;
}

/* Add what a query has from one part of its keys to what it has from those before, [E + 2] each. */
static void add_part(const float *part, int64_t size, float *all) {
  if (part[size] == -INFINITY) return; /* it sees none of these keys */
  if (all[size] == -INFINITY) {
    memcpy(all, part, (size + 2) * sizeof(float));
    return;
  }
  const float top = fmaxf(all[size], part[size]);
  const float before = exp2f(all[size] - top), now = exp2f(part[size] - top);
  for (int64_t e = 0; e < size; e++) all[e] = all[e] * before + part[e] * now;
  all[size] = top;
  all[size + 1] = all[size + 1] * before + part[size + 1] * now;
}

/* Start a query's sums, maximum and total, [E + 2]. */
static void start_parts(float *all, int64_t size) {
  memset(all, 0, (size + 2) * sizeof(float));
  all[size] = -INFINITY;
}

/* Write a query's output. */
static void divide_by_total(const float *all, int64_t size, float *output) {
  const float inverse = 1.0f / all[size + 1];
  for (int64_t e = 0; e < size; e++) output[e] = all[e] * inverse;
}

/* Attend from queries to one part of their keys; write sums, maxima and totals to `results`, [queries, E + 2]. */
static void attend_part(Job *job, const QueryTile *selected, int64_t from, int64_t to, float *results) {
  QueryTile queries = *selected;
  const int64_t size = queries.size;
  queries.from = larger(queries.from, from);
  queries.to = smaller(queries.to, to);
  for (int row = 0; row < queries.count; row++) queries.sums[row] = results + row * (size + 2);
  attend_queries(job, &queries);
  for (int row = 0; row < queries.count; row++) {
    queries.sums[row][size] = queries.maxima[row];
    queries.sums[row][size + 1] = queries.totals[row];
  }
}

/* Attend from a tile of queries to all their keys. */
static void attend_tile(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  /* The longest come first, so that threads finish at about the same time. */
  const int64_t head = (int64_t)task / job->tiles, tile = job->tiles - 1 - (int64_t)task % job->tiles;
  const int64_t size = a->head_size, before = rows_before(a, head / a->kv_heads);
  float *memory = allocate_aligned(2 * MAX_ROWS * (size + 2) * sizeof(float));
  if (memory == NULL) {
    job->failed = 1;
    return;
  }
  float *all = memory, *one = memory + MAX_ROWS * (size + 2);
  QueryTile queries;
  select_queries(a, head, tile * MAX_ROWS, smaller((tile + 1) * MAX_ROWS, a->tokens * (a->heads / a->kv_heads)),
                 &queries);
  for (int row = 0; row < queries.count; row++) start_parts(all + row * (size + 2), size);
  for (int64_t part = (queries.from + before) / PART_KEYS; part * PART_KEYS - before < queries.to; part++) {
    attend_part(job, &queries, part * PART_KEYS - before, (part + 1) * PART_KEYS - before, one);
    if (job->failed) break;
    for (int row = 0; row < queries.count; row++) add_part(one + row * (size + 2), size, all + row * (size + 2));
  }
  for (int row = 0; row < queries.count; row++) divide_by_total(all + row * (size + 2), size, queries.sums[row]);
  free_aligned(memory);
}

/* Attend from one token to one part of its keys, for all query heads of a group. */
static void attend_token(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  const int64_t head = (int64_t)task / job->parts, part = (int64_t)task % job->parts;
  const int64_t start = part * PART_KEYS - rows_before(a, head / a->kv_heads);
  float *partial = job->partial + (head * job->parts + part) * group * (size + 2);
  for (int64_t from = 0; from < group; from += MAX_ROWS) {
    QueryTile queries;
    select_queries(a, head, from, smaller(from + MAX_ROWS, group), &queries);
    if (start >= queries.to || start + PART_KEYS <= queries.from) return;
    attend_part(job, &queries, start, start + PART_KEYS, partial + from * (size + 2));
  }
}

/* Merge the parts of the queries of one key head. */
static void merge_parts(const Job *job, int64_t head) {
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size, b = head / a->kv_heads;
  const int64_t row = row_of(a, b, 0), before = rows_before(a, b);
  const int64_t from = (first_seen(a, row) + before) / PART_KEYS, to = (row + before) / PART_KEYS;
  for (int64_t g = 0; g < group; g++) {
    float all[MAX_HEAD_SIZE + 2];
    start_parts(all, size);
    for (int64_t part = from; part <= to; part++)
      add_part(job->partial + ((head * job->parts + part) * group + g) * (size + 2), size, all);
    divide_by_total(all, size, a->output + (b * a->heads + head % a->kv_heads * group + g) * size);
  }
}

int attend(const Attention *a, ParallelFor parallel, void *context) {
  const int64_t group = a->heads / a->kv_heads, heads = a->batch * a->kv_heads;
  Job job = {.a = a};
  if (a->rounded && a->with->attend_long != NULL && matmul_is_long(a->tokens)) {
    job.tiles = ceil_div(a->tokens * group, a->with->long_rows);
    parallel(context, attend_long_tile, heads * job.tiles, &job);
    return job.failed ? -1 : 0;
  }
  if (a->tokens > 1) {
    job.tiles = ceil_div(a->tokens * group, MAX_ROWS);
    parallel(context, attend_tile, heads * job.tiles, &job);
    return job.failed ? -1 : 0;
  }
  int64_t longest = 0;
  for (int64_t b = 0; b < a->batch; b++) longest = larger(longest, rows_before(a, b) + row_of(a, b, 0) + 1);
  job.parts = ceil_div(longest, PART_KEYS);
  job.partial = allocate_aligned(times(times(times(heads, job.parts), group), (a->head_size + 2) * sizeof(float)));
  if (job.partial == NULL) return -1;
  parallel(context, attend_token, heads * job.parts, &job);
  for (int64_t head = 0; head < heads && !job.failed; head++) merge_parts(&job, head);
  free_aligned(job.partial);
  return job.failed ? -1 : 0;
}

#else

const AttentionFunctions *attention_functions(void) { return NULL; }

int attend(const Attention *attention, ParallelFor parallel, void *context) {
  return (void)attention, (void)parallel, (void)context, -1;
}

#endif
