/* The products' tasks. What is done with vectors is in the file of an instruction set. */
#include "matmul.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <stdlib.h>

#include "instructions.h"
#include "threads.h"

enum {
  FEW_ROWS = 12, /* of x: so few are quantized at once, and make the weights all that is read */
  FORMATS = 2,   /* of quantized x: in steps of 16 and of 32 */
};

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int step_of(const PackedWeights *w) { return w->shape.block_size == 16 ? 16 : 32; }

/* Whether weights of 4 bits are multiplied as those of 8. */
static int widened(const PackedWeights *w, int64_t m) {
  return w->shape.bits == 4 && w->with->wide_rows > 0 && m >= w->with->wide_rows;
}

/* Which of the sums of x are where a product's start. */
static enum Sums sums_of(const PackedWeights *w, int64_t m) {
  if (widened(w, m)) return TIMES_128;
  return w->asymmetric ? TIMES_1 : w->shape.bits == 8 ? TIMES_128 : TIMES_8;
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

/* Lays m rows of k elements out in `memory`, for the products that `wanted` says; their size where that is NULL. */
static size_t lay_out(Quantized *x, uint8_t *memory, int64_t m, int64_t k, int step, const int wanted[SUMS]) {
  x->padded = ceil_div(k, CHUNK) * CHUNK;
  x->step = step;
  const size_t q = aligned(m * x->padded), each = aligned(m * (x->padded / step) * sizeof(float));
  size_t size = q + each;
  x->q = (int8_t *)memory;
  x->scales = (float *)(memory + q);
  for (int i = 0; i < SUMS; i++) {
    x->sums[i] = wanted[i] ? (int32_t *)(memory + size) : NULL;
    if (wanted[i]) size += each;
  }
  return size;
}

typedef struct {
  const Source *source;
  const Instructions *with;
  const Quantized *to[FORMATS];
  int formats;
  float *normalized; /* a row of K for each task */
} QuantizeJob;

static void quantize_part(void *data, size_t task) {
  const QuantizeJob *job = data;
  const Source *source = job->source;
  const int64_t k = source->k, from = (int64_t)task * FEW_ROWS, to = smaller(from + FEW_ROWS, source->m);
  for (int64_t row = from; row < to; row++) {
    const float *x = source->x + row * k;
    if (source->norm != NULL) {
      float *made = job->normalized + (int64_t)task * k;
      job->with->normalize(x, source->skip == NULL ? NULL : source->skip + row * k, source->norm, source->epsilon, k,
                           source->sum == NULL ? NULL : source->sum + row * k, made);
      x = made;
    }
    for (int i = 0; i < job->formats; i++) job->with->quantize(job->to[i], row, 0, x, k, job->to[i]->padded);
  }
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const Product *products;
  int count;
  int64_t m, tasks;
  const Quantized *x[MOST_PRODUCTS], *gate_x[MOST_PRODUCTS];
  const Quantized *into; /* what becomes of the product's y if another product follows */
  int failed;
} MultiplyJob;

/* Tiles that stay together: pairs where many rows share what is loaded of x between them, or y is quantized. */
static int64_t tiles_together(const MultiplyJob *job) { return job->m > FEW_ROWS || job->into != NULL ? 2 : 1; }

static Job job_of(MultiplyJob *job, const PackedWeights *w, const Quantized *x, const float *bias, float *y) {
  return (Job){w, x, x->sums[sums_of(w, job->m)], bias, y, w->shape.n, 0, job->m, &job->failed};
}

static void multiply_tiles(const Job *job, int64_t from, int64_t to) {
  const PackedWeights *w = job->w;
  w->with->multiply[w->shape.bits == 8][w->shape.block_size > 16][w->asymmetric](job, from, to);
}

/* The same where y is no result, for tiles first .. last: their columns lie in `memory`, `width` of them. */
static const float *multiply_into(Job job, int64_t first, int64_t last, float *memory, int64_t width) {
  job.y = memory;
  job.stride = width;
  job.first_column = first * LANES;
  multiply_tiles(&job, first, last);
  return memory;
}

/* Tiles from .. to of a product that has a gate or is followed by another, some of them at a time, so that what is no
 * result stays in the cache. */
static void multiply_gated(MultiplyJob *job, int number, int64_t from, int64_t to) {
  const Product *product = &job->products[number];
  const PackedWeights *w = product->weights;
  const int64_t m = job->m, n = w->shape.n, together = m > FEW_ROWS ? TILES : to - from, width = together * LANES;
  const int64_t all = ceil_div(n, LANES);
  float *memory = aligned_alloc(LINE, 2 * aligned(m * width * sizeof(float)));
  if (memory == NULL) {
    job->failed = 1;
    return;
  }
  const Job own = job_of(job, w, job->x[number], product->bias, product->y);
  for (int64_t first = from; first < to; first += together) {
    const int64_t last = smaller(first + together, to), column = first * LANES;
    const int64_t count = smaller(n - column, (last - first) * LANES);
    const float *gates = NULL;
    if (product->gate != NULL)
      gates = multiply_into(job_of(job, product->gate->weights, job->gate_x[number], product->gate->bias, NULL), first,
                            last, memory, width);
    float *made = memory + m * width;
    if (job->into == NULL) multiply_tiles(&own, first, last);
    else multiply_into(own, first, last, made, width);
    for (int64_t row = 0; row < m; row++) {
      float *y = job->into == NULL ? product->y + row * n + column : made + row * width;
      if (gates != NULL) w->with->gate(gates + row * width, y, count);
      if (job->into == NULL) continue;
      const int64_t end = last == all ? job->into->padded - column : count; /* behind the last are zeros */
      w->with->quantize(job->into, row, column, y, count, end);
    }
  }
  free(memory);
}

/* What there is to do, in products of tiles that stay together. */
static int64_t work(const MultiplyJob *job) {
  int64_t all = 0;
  for (int i = 0; i < job->count; i++) {
    const Product *product = &job->products[i];
    all += ceil_div(product->weights->shape.n, LANES * tiles_together(job)) * (product->gate != NULL ? 2 : 1);
  }
  return all;
}

/* A task is a part of all products' tiles, one product behind the other. */
static void multiply_part(void *data, size_t task) {
  MultiplyJob *job = data;
  const int64_t together = tiles_together(job), all = work(job);
  const int64_t begin = all * (int64_t)task / job->tasks, end = all * ((int64_t)task + 1) / job->tasks;
  int64_t before = 0;
  for (int i = 0; i < job->count; i++) {
    const Product *product = &job->products[i];
    const int64_t tiles = ceil_div(product->weights->shape.n, LANES), units = ceil_div(tiles, together);
    const int64_t each = product->gate != NULL ? 2 : 1;
    const int64_t first = smaller(ceil_div(larger(begin - before, 0), each), units);
    const int64_t last = smaller(ceil_div(larger(end - before, 0), each), units);
    before += units * each;
    const int64_t from = first * together, to = smaller(last * together, tiles);
    if (from >= to) continue;
    if (product->gate != NULL || job->into != NULL) {
      multiply_gated(job, i, from, to);
    } else {
      const Job one = job_of(job, product->weights, job->x[i], product->bias, product->y);
      multiply_tiles(&one, from, to);
    }
  }
}

static void multiply_all(MultiplyJob *job, ParallelFor parallel, void *context) {
  /* With few rows the weights are all that is read, each part of them in order: long parts, but more than there are
   * processors, since these are not equally free. */
  job->tasks = smaller(work(job), usable_processors() * (job->m <= FEW_ROWS ? 4 : 16));
  parallel(context, multiply_part, job->tasks, job);
}

int matmul(const Source *source, const Product *products, int count, ParallelFor parallel, void *context) {
  const int64_t m = source->m;
  const Instructions *with = products[0].weights->with;
  const Product *then = products[0].then;
  Quantized formats[FORMATS], hidden;
  int wanted[FORMATS][SUMS] = {{0}}, used[FORMATS] = {0}, wanted_then[SUMS] = {0};
  for (int i = 0; i < count; i++) {
    for (const Product *each = &products[i]; each != NULL; each = each == &products[i] ? each->gate : NULL) {
      const int format = step_of(each->weights) == 32;
      used[format] = wanted[format][sums_of(each->weights, m)] = 1;
    }
  }
  size_t bytes = 0;
  const size_t normalized = source->norm == NULL ? 0 : aligned(ceil_div(m, FEW_ROWS) * source->k * sizeof(float));
  for (int f = 0; f < FORMATS; f++)
    if (used[f]) bytes += lay_out(&formats[f], NULL, m, source->k, 16 << f, wanted[f]);
  if (then != NULL) {
    wanted_then[sums_of(then->weights, m)] = 1;
    bytes += lay_out(&hidden, NULL, m, then->weights->shape.k, step_of(then->weights), wanted_then);
  }
  uint8_t *memory = aligned_alloc(LINE, bytes + normalized), *at = memory;
  if (memory == NULL) return -1;
  QuantizeJob first = {.source = source, .with = with, .normalized = (float *)(memory + bytes)};
  for (int f = 0; f < FORMATS; f++) {
    if (!used[f]) continue;
    at += lay_out(&formats[f], at, m, source->k, 16 << f, wanted[f]);
    first.to[first.formats++] = &formats[f];
  }
  if (m <= FEW_ROWS) quantize_part(&first, 0);
  else parallel(context, quantize_part, ceil_div(m, FEW_ROWS), &first);
  MultiplyJob job = {.products = products, .count = count, .m = m};
  for (int i = 0; i < count; i++) {
    job.x[i] = &formats[step_of(products[i].weights) == 32];
    if (products[i].gate != NULL) job.gate_x[i] = &formats[step_of(products[i].gate->weights) == 32];
  }
  if (then != NULL) {
    lay_out(&hidden, at, m, then->weights->shape.k, step_of(then->weights), wanted_then);
    job.into = &hidden;
  }
  multiply_all(&job, parallel, context);
  int failed = job.failed;
  if (then != NULL && !failed) {
    MultiplyJob last = {.products = then, .count = 1, .m = m, .x = {&hidden}};
    multiply_all(&last, parallel, context);
    failed = last.failed;
  }
  free(memory);
  return failed ? -1 : 0;
}

#else

int matmul(const Source *source, const Product *products, int count, ParallelFor parallel, void *context) {
  return (void)source, (void)products, (void)count, (void)parallel, (void)context, -1;
}

#endif
