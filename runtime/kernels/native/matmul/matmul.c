/* The products' tasks. What is done with vectors is in the file of an instruction set. */
#include "matmul/matmul.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <stdlib.h>

#include "matmul/repacked.h"
#include "common/memory.h"
#include "common/threads.h"

enum {
  FEW_ROWS = 12, /* of x: so few are quantized at once, and make the weights all that is read */
  FORMATS = 2,   /* of quantized x: in steps of 16 and of 32 */
  ROWS_IN_CACHE = 96, /* of y that are made before something is done with them */
  LONG_ROW = 2048,    /* elements of a row of W beyond which fewer rows of it stay in the cache */
};

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Whether weights are made bytes of first, as those of 4 bits are for a long text. */
static int is_coarse(const PackedWeights *w, int64_t sequence) {
  return w->shape.bits == 4 && w->with->coarsen != NULL && sequence >= COARSE_ROWS;
}

/* Elements of x that share a scale. */
static int step_of(const PackedWeights *w, int64_t sequence) {
  return w->shape.block_size == 16 && !is_coarse(w, sequence) ? 16 : 32;
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

static size_t quantized_bytes(int64_t m, int64_t k, int step) {
  return aligned(m * row_bytes(ceil_div(k, CHUNK) * CHUNK, step));
}

/* Room for m rows of k elements, from *memory on, which is moved behind it. */
static Quantized lay_out(uint8_t **memory, int64_t m, int64_t k, int step) {
  const Quantized x = {ceil_div(k, CHUNK) * CHUNK, step, *memory};
  *memory += quantized_bytes(m, k, step);
  return x;
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
  int64_t m, sequence, tasks;
  const Quantized *x[MOST_PRODUCTS], *gate_x[MOST_PRODUCTS];
  const Quantized *into; /* what becomes of the product's y if another product follows */
  int failed;
} MultiplyJob;

/* Tiles that stay together: pairs where many rows share what is loaded of x between them, or y is quantized. */
static int64_t tiles_together(const MultiplyJob *job) { return job->m > FEW_ROWS || job->into != NULL ? 2 : 1; }

/* Tiles of a matrix that many rows are multiplied with before the next ones. */
static int64_t tiles_in_cache(const PackedWeights *w) { return w->shape.k <= LONG_ROW ? 2 * TILES : TILES; }

/* A matrix, and x in the form that it takes. */
typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const float *bias;
  uint8_t *coarse; /* memory for the coarse form of some tiles, if they are multiplied in that */
} Factor;

static size_t coarse_bytes(const PackedWeights *w, int64_t sequence, int64_t tiles) {
  return is_coarse(w, sequence) ? aligned(tiles * w->with->coarse_tile_bytes(w)) : 0;
}

/* Rows first .. last against tiles from .. to; y's rows and columns from the first ones on lie from `y` on. */
static void multiply(const Factor *factor, int64_t first, int64_t last, int64_t from, int64_t to, float *y,
                     int64_t stride) {
  const PackedWeights *w = factor->w;
  const Job job = {w, factor->x, factor->bias, factor->coarse, y, stride, from * LANES, first, last};
  if (factor->coarse != NULL) w->with->multiply_coarse(&job, from, to);
  else w->with->multiply[w->shape.bits == 8][w->shape.block_size > 16][w->asymmetric](&job, from, to);
}

/* Tiles from .. to of a product, and what is done with y: some tiles and rows at a time, so that what is no result stays
 * in the cache. */
static void multiply_tiles(MultiplyJob *job, int number, int64_t from, int64_t to) {
  const Product *product = &job->products[number];
  const PackedWeights *w = product->weights, *gate = product->gate == NULL ? NULL : product->gate->weights;
  const Quantized *into = job->into;
  const int64_t m = job->m, n = w->shape.n, tiles = ceil_div(n, LANES);
  const int64_t together = m > FEW_ROWS ? smaller(tiles_in_cache(w), to - from) : to - from, width = together * LANES;
  const int64_t rows = gate == NULL && into == NULL ? m : smaller(m, ROWS_IN_CACHE); /* and those that are left, if few */
  const size_t own_coarse = coarse_bytes(w, job->sequence, together);
  const size_t gate_coarse = gate == NULL ? 0 : coarse_bytes(gate, job->sequence, together);
  const size_t y_bytes = (rows + FEW_ROWS) * width * sizeof(float);
  const size_t own_y = into == NULL ? 0 : y_bytes, gate_y = gate == NULL ? 0 : y_bytes;
  const size_t bytes = own_coarse + gate_coarse + own_y + gate_y;
  uint8_t *memory = bytes == 0 ? NULL : allocate_aligned(bytes);
  if (bytes > 0 && memory == NULL) {
    job->failed = 1;
    return;
  }
  float *made = (float *)(memory + own_coarse + gate_coarse), *gates = (float *)((uint8_t *)made + own_y);
  const Factor own = {w, job->x[number], product->bias, own_coarse > 0 ? memory : NULL};
  Factor other = {gate, job->gate_x[number], NULL, gate_coarse > 0 ? memory + own_coarse : NULL};
  if (gate != NULL) other.bias = product->gate->bias;
  for (int64_t first = from; first < to; first += together) {
    const int64_t last = smaller(first + together, to), column = first * LANES;
    const int64_t count = smaller(n - column, (last - first) * LANES);
    if (own.coarse != NULL) w->with->coarsen(w, first, last, own.coarse);
    if (other.coarse != NULL) gate->with->coarsen(gate, first, last, other.coarse);
    for (int64_t top = 0, end; top < m; top = end) {
      end = m - top <= rows + FEW_ROWS ? m : top + rows;
      float *y = into == NULL ? product->y + top * n + column : made;
      const int64_t stride = into == NULL ? n : width;
      if (gate != NULL) multiply(&other, top, end, first, last, gates, width);
      multiply(&own, top, end, first, last, y, stride);
      for (int64_t row = top; row < end && (gate != NULL || into != NULL); row++, y += stride) {
        if (gate != NULL) w->with->gate(gates + (row - top) * width, y, count);
        /* Behind the last column are zeros. */
        if (into != NULL) w->with->quantize(into, row, column, y, count, last == tiles ? into->padded - column : count);
      }
    }
  }
  free_aligned(memory);
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
    if (from < to) multiply_tiles(job, i, from, to);
  }
}

static void multiply_all(MultiplyJob *job, ParallelFor parallel, void *context) {
  /* With few rows the weights are all that is read, each part of them in order: long parts, but more than there are
   * processors, since these are not equally free. */
  job->tasks = smaller(work(job), usable_processors() * (job->m <= FEW_ROWS ? 4 : 16));
  parallel(context, multiply_part, job->tasks, job);
}

int matmul(const Source *source, const Product *products, int count, ParallelFor parallel, void *context) {
  const int64_t m = source->m, sequence = source->sequence;
  const Instructions *with = products[0].weights->with;
  const Product *then = products[0].then;
  Quantized formats[FORMATS], hidden;
  int used[FORMATS] = {0};
  for (int i = 0; i < count; i++) {
    used[step_of(products[i].weights, sequence) == 32] = 1;
    if (products[i].gate != NULL) used[step_of(products[i].gate->weights, sequence) == 32] = 1;
  }
  const int then_step = then == NULL ? 0 : step_of(then->weights, sequence);
  const int64_t then_k = then == NULL ? 0 : then->weights->shape.k;
  size_t bytes = source->norm == NULL ? 0 : aligned(ceil_div(m, FEW_ROWS) * source->k * sizeof(float));
  for (int f = 0; f < FORMATS; f++)
    if (used[f]) bytes += quantized_bytes(m, source->k, 16 << f);
  if (then != NULL) bytes += quantized_bytes(m, then_k, then_step);
  uint8_t *memory = allocate_aligned(bytes), *at = memory;
  if (memory == NULL) return -1;
  QuantizeJob first = {.source = source, .with = with};
  for (int f = 0; f < FORMATS; f++) {
    if (!used[f]) continue;
    formats[f] = lay_out(&at, m, source->k, 16 << f);
    first.to[first.formats++] = &formats[f];
  }
  if (then != NULL) hidden = lay_out(&at, m, then_k, then_step);
  first.normalized = (float *)at;
  if (m <= FEW_ROWS) quantize_part(&first, 0);
  else parallel(context, quantize_part, ceil_div(m, FEW_ROWS), &first);
  MultiplyJob job = {.products = products, .count = count, .m = m, .sequence = sequence};
  for (int i = 0; i < count; i++) {
    job.x[i] = &formats[step_of(products[i].weights, sequence) == 32];
    if (products[i].gate != NULL) job.gate_x[i] = &formats[step_of(products[i].gate->weights, sequence) == 32];
  }
  if (then != NULL) job.into = &hidden;
  multiply_all(&job, parallel, context);
  int failed = job.failed;
  if (then != NULL && !failed) {
    MultiplyJob last = {.products = then, .count = 1, .m = m, .sequence = sequence, .x = {&hidden}};
    multiply_all(&last, parallel, context);
    failed = last.failed;
  }
  free_aligned(memory);
  return failed ? -1 : 0;
}

#else

int matmul(const Source *source, const Product *products, int count, ParallelFor parallel, void *context) {
  return (void)source, (void)products, (void)count, (void)parallel, (void)context, -1;
}

#endif
