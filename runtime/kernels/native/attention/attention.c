#include "attention/attention.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/cache.h"
#include "attention/query_tile.h"

enum { SPLIT = 512 /* keys of a part, where one token's attention is divided among threads */ };

int attention_supported(void) { return (instruction_sets() & HAS_AVX512) != 0; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

typedef struct {
  const Attention *a;
  int64_t tiles;  /* tasks of a row of the batch and a key head */
  int64_t parts;  /* most parts of one token's keys */
  float *partial; /* [B * K, parts, G, E + 2]: sums, maximum, total */
  int failed;
} Job;

/* The first key that any of the tokens from position `position` on sees. */
static int64_t first_key(const Attention *a, int64_t position) {
  return a->window > 0 ? larger(position - a->window + 1, 0) : 0;
}

/* The queries of key head `head` of all rows, [S, G] of them, from `from` to `to`, and all keys that they see. */
static void take_rows(const Attention *a, int64_t head, int64_t from, int64_t to, Rows *rows) {
  const int64_t group = a->heads / a->kv_heads, b = head / a->kv_heads, first = head % a->kv_heads * group;
  rows->size = a->head_size;
  rows->window = a->window;
  rows->scale = a->scale;
  rows->int8 = a->int8;
  rows->keys = a->keys + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  rows->values = a->values + head * a->capacity * cache_row_bytes(a->head_size, a->int8);
  rows->from = first_key(a, a->past[b] + from / group);
  rows->to = a->past[b] + (to - 1) / group + 1;
  rows->rows = (int)(to - from);
  for (int64_t row = from; row < to; row++) {
    const int64_t token = row / group, query = (b * a->tokens + token) * a->heads + first + row % group;
    rows->queries[row - from] = a->queries + query * a->head_size;
    rows->sums[row - from] = a->output + query * a->head_size;
    rows->positions[row - from] = a->past[b] + token;
  }
}

static void attend_rows(Job *job, Rows *rows) {
  if ((rows->rows > FEW_ROWS ? attend_many : attend_few)(rows) != 0) job->failed = 1;
}

static void attend_tile(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  /* The longest first: the last ones then finish at about the same time. */
  const int64_t head = (int64_t)task / job->tiles, tile = job->tiles - 1 - (int64_t)task % job->tiles;
  Rows rows;
  take_rows(a, head, tile * MOST_ROWS, smaller((tile + 1) * MOST_ROWS, a->tokens * (a->heads / a->kv_heads)), &rows);
  attend_rows(job, &rows);
  for (int row = 0; row < rows.rows; row++) {
    const float inverse = 1.0f / rows.totals[row];
    for (int64_t e = 0; e < a->head_size; e++) rows.sums[row][e] *= inverse;
  }
}

/* One part of one token's keys, for all heads of a group. */
static void attend_part(void *data, size_t task) {
  Job *job = data;
  const Attention *a = job->a;
  const int64_t group = a->heads / a->kv_heads, size = a->head_size;
  const int64_t head = (int64_t)task / job->parts, part = (int64_t)task % job->parts;
  float *partial = job->partial + (head * job->parts + part) * group * (size + 2);
  for (int64_t from = 0; from < group; from += MOST_ROWS) {
    Rows rows;
    take_rows(a, head, from, smaller(from + MOST_ROWS, group), &rows);
    rows.from = larger(rows.from, part * SPLIT);
    rows.to = smaller(rows.to, (part + 1) * SPLIT);
    if (rows.from >= rows.to) return;
    for (int row = 0; row < rows.rows; row++) rows.sums[row] = partial + (from + row) * (size + 2);
    attend_rows(job, &rows);
    for (int row = 0; row < rows.rows; row++) {
      rows.sums[row][size] = rows.maxima[row];
      rows.sums[row][size + 1] = rows.totals[row];
    }
  }
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
    job.tiles = ceil_div(a->tokens * group, MOST_ROWS);
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
