#include "attention/attention.h"
#include "common/processor.h"

#if HAVE_X86

#include <math.h>
#include <string.h>

#include "attention/cache.h"
#include "attention/query_tile.h"
#include "common/memory.h"
#include "common/sizes.h"

enum { SPLIT_KEYS = 512 /* keys of a task in decode, where threads divide one token's attention */ };

int attention_supported(void) { return (instruction_sets() & HAS_AVX512) != 0; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

typedef struct {
  const Attention *a;
  int64_t tiles;  /* tasks for each sequence and key head */
  int64_t parts;  /* tasks for one token's keys */
  float *partial; /* [B * K, parts, G, E + 2]: sums, maximum and total of each query */
  int failed;
} Job;

/* Return the first key that a token at this position or a later one sees. */
static int64_t first_key(const Attention *a, int64_t position) {
  return a->window > 0 ? larger(position - a->window + 1, 0) : 0;
}

/* Select queries from .. to of a key head, counted over its [S, G] queries, and all keys that they see. `head` counts
 * over sequences and key heads, [B, K]. */
static void select_queries(const Attention *a, int64_t head, int64_t from, int64_t to, QueryTile *queries) {
  const int64_t group = a->heads / a->kv_heads, b = head / a->kv_heads, first = head % a->kv_heads * group;
  queries->size = a->head_size;
  queries->window = a->window;
  queries->scale = a->scale;
  queries->int8 = a->int8;
  queries->keys = a->keys + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  queries->values = a->values + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  queries->from = first_key(a, a->past[b] + from / group);
  queries->to = a->past[b] + (to - 1) / group + 1;
  queries->count = (int)(to - from);
  for (int64_t row = from; row < to; row++) {
    const int64_t token = row / group, query = (b * a->tokens + token) * a->heads + first + row % group;
    queries->vectors[row - from] = a->queries + query * a->head_size;
    queries->sums[row - from] = a->output + query * a->head_size;
    queries->positions[row - from] = a->past[b] + token;
  }
}

static void attend_queries(Job *job, QueryTile *queries) {
  if ((queries->count > DECODE_ROWS ? attend_prefill : attend_decode)(queries) != 0) job->failed = 1;
}

static void attend_tile(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  /* The longest come first, so that threads finish at about the same time. */
  const int64_t head = (int64_t)task / job->tiles, tile = job->tiles - 1 - (int64_t)task % job->tiles;
  QueryTile queries;
  select_queries(a, head, tile * MAX_ROWS, smaller((tile + 1) * MAX_ROWS, a->tokens * (a->heads / a->kv_heads)),
                 &queries);
  attend_queries(job, &queries);
  for (int row = 0; row < queries.count; row++) {
    const float inverse = 1.0f / queries.totals[row];
    for (int64_t e = 0; e < a->head_size; e++) queries.sums[row][e] *= inverse;
  }
}

/* Attend from one token to one part of its keys, for all query heads of a group. */
static void attend_part(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  const int64_t head = (int64_t)task / job->parts, part = (int64_t)task % job->parts;
  float *partial = job->partial + (head * job->parts + part) * group * (size + 2);
  for (int64_t from = 0; from < group; from += MAX_ROWS) {
    QueryTile queries;
    select_queries(a, head, from, smaller(from + MAX_ROWS, group), &queries);
    queries.from = larger(queries.from, part * SPLIT_KEYS);
    queries.to = smaller(queries.to, (part + 1) * SPLIT_KEYS);
    if (queries.from >= queries.to) return;
    for (int row = 0; row < queries.count; row++) queries.sums[row] = partial + (from + row) * (size + 2);
    attend_queries(job, &queries);
    for (int row = 0; row < queries.count; row++) {
      queries.sums[row][size] = queries.maxima[row];
      queries.sums[row][size + 1] = queries.totals[row];
    }
  }
}

static void merge_parts(const Job *job) {
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  for (int64_t head = 0; head < a->batch * a->kv_heads; head++) {
    const int64_t position = a->past[head / a->kv_heads];
    const int64_t from = first_key(a, position) / SPLIT_KEYS, to = position / SPLIT_KEYS + 1;
    for (int64_t g = 0; g < group; g++) {
      const float *parts = job->partial + (head * job->parts * group + g) * (size + 2);
      const int64_t stride = group * (size + 2);
      float top = -INFINITY, total = 0.0f;
      for (int64_t part = from; part < to; part++) top = fmaxf(top, parts[part * stride + size]);
      float *out = a->output + ((head / a->kv_heads) * a->heads + head % a->kv_heads * group + g) * size;
      memset(out, 0, size * sizeof(float));
      for (int64_t part = from; part < to; part++) {
        const float *sums = parts + part * stride, factor = exp2f(sums[size] - top);
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
    job.tiles = ceil_div(a->tokens * group, MAX_ROWS);
    parallel(context, attend_tile, heads * job.tiles, &job);
    return job.failed ? -1 : 0;
  }
  int64_t longest = 0;
  for (int64_t b = 0; b < a->batch; b++) longest = larger(longest, a->past[b] + 1);
  job.parts = ceil_div(longest, SPLIT_KEYS);
  job.partial = allocate_aligned(times(times(times(heads, job.parts), group), (a->head_size + 2) * sizeof(float)));
  if (job.partial == NULL) return -1;
  parallel(context, attend_part, heads * job.parts, &job);
  if (!job.failed) merge_parts(&job);
  free_aligned(job.partial);
  return job.failed ? -1 : 0;
}

#else

int attention_supported(void) { return 0; }

int attend(const Attention *attention, ParallelFor parallel, void *context) {
  return (void)attention, (void)parallel, (void)context, -1;
}

#endif
