/* The division of matrix multiplications into tasks. The vector code is in the file of each instruction set. */
#include "matmul/matmul.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <stdlib.h>

#include "common/memory.h"
#include "common/threads.h"
#include "matmul/operand.h"

enum { FORMATS = 3 /* of quantized x: steps of 16, 32 and REPACK_STEP elements */ };

static _Thread_local int64_t repack_rows = REPACK_ROWS;

void matmul_repack_rows(int64_t rows) { repack_rows = smaller(larger(rows, REPACK_LEAST), REPACK_ROWS); }

int matmul_is_long(int64_t rows) { return rows >= repack_rows; }

static int format_of(int step) { return step == REPACK_STEP ? 2 : step == 32 ? 1 : 0; }

static int step_of_format(int format) { return format == 2 ? REPACK_STEP : 16 << format; }

/* ---- x ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  const Input *source;
  const Instructions *with;
  const Quantized *to[FORMATS];
  int formats;
  float *normalized; /* a row of K for each task */
} QuantizeJob;

static void quantize_part(void *data, size_t task) {
  const QuantizeJob *job = data;
  const Input *source = job->source;
  const int64_t k = source->k, from = (int64_t)task * GEMV_ROWS, to = smaller(from + GEMV_ROWS, source->m);
  for (int64_t row = from; row < to; row++) {
    const float *x = source->x + row * k;
    if (source->norm != NULL) {
      float *made = job->normalized + (int64_t)task * k;
      job->with->normalize(x, source->skip == NULL ? NULL : source->skip + row * k, source->norm, source->epsilon, k,
                           source->sum == NULL ? NULL : source->sum + row * k, made);
      x = made;
    }
    for (int i = 0; i < job->formats; i++) quantize(job->with, job->to[i], row, 0, x, k, job->to[i]->padded);
  }
}

/* ---- multiplication ---------------------------------------------------------------------------------------------- */

typedef struct {
  const Linear *linears;
  int count;
  int64_t m, tasks;
  int is_long; /* the sequence is so long that weights are repacked */
  const Quantized *x[MAX_LINEARS], *gate_x[MAX_LINEARS];
  const Quantized *into; /* where y is quantized to if another multiplication follows */
  int failed;
} MultiplyJob;

/* Return how many tiles are not divided: two if they are multiplied together (repacked.c); those of a step if y is
 * quantized. */
static int64_t tiles_per_unit(const MultiplyJob *job) {
  const int64_t quantized = job->into == NULL ? 1 : ceil_div(job->into->step, LANES);
  return larger(quantized, job->is_long || job->into != NULL ? 2 : 1);
}

/* Return how many tiles of W are multiplied with all rows before the next tiles. */
static int64_t tiles_in_cache(const MultiplyJob *job, const PackedWeights *w) {
  return larger(tiles_at_once(w), tiles_per_unit(job));
}

/* Multiply with tiles from .. to, then gate and quantize y: some tiles and rows at a time, so that intermediate values stay in
 * the cache. */
static void multiply_tiles(MultiplyJob *job, int number, int64_t from, int64_t to) {
  const Linear *linear = &job->linears[number];
  const PackedWeights *w = linear->weights, *gate = linear->gate == NULL ? NULL : linear->gate->weights;
  const Quantized *into = job->into;
  const int64_t m = job->m, n = w->shape.n, tiles = ceil_div(n, LANES);
  const int64_t together = m > GEMV_ROWS ? smaller(tiles_in_cache(job, w), to - from) : to - from,
                width = together * LANES;
  const int64_t rows = gate == NULL && into == NULL ? m : smaller(m, ROWS_IN_CACHE); /* and the rest, if it is small */
  const size_t own_repacked = repacked_bytes(w, m, job->is_long, together);
  const size_t gate_repacked = gate == NULL ? 0 : repacked_bytes(gate, m, job->is_long, together);
  const size_t y_bytes = times(times(rows + GEMV_ROWS, width), sizeof(float));
  const size_t own_y = into == NULL ? 0 : y_bytes, gate_y = gate == NULL ? 0 : y_bytes;
  const size_t bytes = plus(plus(own_repacked, gate_repacked), plus(own_y, gate_y));
  uint8_t *memory = bytes == 0 ? NULL : allocate_aligned(bytes);
  if (bytes > 0 && memory == NULL) {
    job->failed = 1;
    return;
  }
  float *made = (float *)(memory + own_repacked + gate_repacked), *gates = (float *)((uint8_t *)made + own_y);
  const Operand own = {w, job->x[number], linear->bias, own_repacked > 0 ? memory : NULL};
  Operand other = {gate, job->gate_x[number], NULL, gate_repacked > 0 ? memory + own_repacked : NULL};
  if (gate != NULL) other.bias = linear->gate->bias;
  for (int64_t first = from; first < to; first += together) {
    const int64_t last = smaller(first + together, to), column = first * LANES;
    const int64_t count = smaller(n - column, (last - first) * LANES);
    if (own.repacked != NULL) w->with->repack(w, first, last, own.repacked);
    if (other.repacked != NULL) gate->with->repack(gate, first, last, other.repacked);
    for (int64_t top = 0, end; top < m; top = end) {
      end = m - top <= rows + GEMV_ROWS ? m : top + rows;
      float *y = into == NULL ? linear->y + top * n + column : made;
      const int64_t stride = into == NULL ? n : width;
      if (gate != NULL) multiply(&other, top, end, first, last, gates, width);
      multiply(&own, top, end, first, last, y, stride);
      for (int64_t row = top; row < end && (gate != NULL || into != NULL); row++, y += stride) {
        if (gate != NULL) w->with->gate(gates + (row - top) * width, y, count);
        /* Pad with zeros after the last column. */
        if (into != NULL) quantize(w->with, into, row, column, y, count, last == tiles ? into->padded - column : count);
      }
    }
  }
  free_aligned(memory);
}

/* Return the work to divide, in units of `tiles_per_unit` tiles; a gate counts as much as the matrix that it gates. */
static int64_t work(const MultiplyJob *job) {
  int64_t all = 0;
  for (int i = 0; i < job->count; i++) {
    const Linear *linear = &job->linears[i];
    all += ceil_div(linear->weights->shape.n, LANES * tiles_per_unit(job)) * (linear->gate != NULL ? 2 : 1);
  }
  return all;
}

/* Run a task: a part of the tiles of all matrices, counted over one matrix after the other. */
static void multiply_part(void *data, size_t task) {
  MultiplyJob *job = data;
  const int64_t together = tiles_per_unit(job), all = work(job);
  const int64_t begin = all * (int64_t)task / job->tasks, end = all * ((int64_t)task + 1) / job->tasks;
  int64_t before = 0;
  for (int i = 0; i < job->count; i++) {
    const Linear *linear = &job->linears[i];
    const int64_t tiles = ceil_div(linear->weights->shape.n, LANES), units = ceil_div(tiles, together);
    const int64_t each = linear->gate != NULL ? 2 : 1;
    const int64_t first = smaller(ceil_div(larger(begin - before, 0), each), units);
    const int64_t last = smaller(ceil_div(larger(end - before, 0), each), units);
    before += units * each;
    const int64_t from = first * together, to = smaller(last * together, tiles);
    if (from < to) multiply_tiles(job, i, from, to);
  }
}

static void multiply_all(MultiplyJob *job, ParallelFor parallel, void *context) {
  /* In decode, reading the weights takes the time: tasks are long, to read in order, but more than there are processors, since
   * some may be busy. */
  job->tasks = smaller(work(job), usable_processors() * (job->m <= GEMV_ROWS ? 4 : 16));
  parallel(context, multiply_part, job->tasks, job);
}

int matmul(const Input *source, const Linear *linears, int count, ParallelFor parallel, void *context) {
  const int64_t m = source->m;
  const int is_long = matmul_is_long(source->sequence);
  const Instructions *with = linears[0].weights->with;
  const Linear *then = linears[0].then;
  Quantized formats[FORMATS], hidden;
  int used[FORMATS] = {0};
  for (int i = 0; i < count; i++) {
    used[format_of(step_of(linears[i].weights, is_long))] = 1;
    if (linears[i].gate != NULL) used[format_of(step_of(linears[i].gate->weights, is_long))] = 1;
  }
  const int then_step = then == NULL ? 0 : step_of(then->weights, is_long);
  const int64_t then_k = then == NULL ? 0 : then->weights->shape.k;
  size_t bytes = source->norm == NULL ? 0 : aligned(times(times(ceil_div(m, GEMV_ROWS), source->k), sizeof(float)));
  for (int f = 0; f < FORMATS; f++)
    if (used[f]) bytes = plus(bytes, quantized_bytes(m, source->k, step_of_format(f)));
  if (then != NULL) bytes = plus(bytes, quantized_bytes(m, then_k, then_step));
  uint8_t *memory = allocate_aligned(bytes), *at = memory;
  if (memory == NULL) return -1;
  QuantizeJob first = {.source = source, .with = with};
  for (int f = 0; f < FORMATS; f++) {
    if (!used[f]) continue;
    formats[f] = place_rows(&at, m, source->k, step_of_format(f));
    first.to[first.formats++] = &formats[f];
  }
  if (then != NULL) hidden = place_rows(&at, m, then_k, then_step);
  first.normalized = (float *)at;
  if (m <= GEMV_ROWS) quantize_part(&first, 0);
  else parallel(context, quantize_part, ceil_div(m, GEMV_ROWS), &first);
  MultiplyJob job = {.linears = linears, .count = count, .m = m, .is_long = is_long};
  for (int i = 0; i < count; i++) {
    job.x[i] = &formats[format_of(step_of(linears[i].weights, is_long))];
    if (linears[i].gate != NULL) job.gate_x[i] = &formats[format_of(step_of(linears[i].gate->weights, is_long))];
  }
  if (then != NULL) job.into = &hidden;
  multiply_all(&job, parallel, context);
  int failed = job.failed;
  if (then != NULL && !failed) {
    MultiplyJob last = {.linears = then, .count = 1, .m = m, .is_long = is_long, .x = {&hidden}};
    multiply_all(&last, parallel, context);
    failed = last.failed;
  }
  free_aligned(memory);
  return failed ? -1 : 0;
}

#else

void matmul_repack_rows(int64_t rows) { (void)rows; }

int matmul_is_long(int64_t rows) { return (void)rows, 0; }

int matmul(const Input *source, const Linear *linears, int count, ParallelFor parallel, void *context) {
  return (void)source, (void)linears, (void)count, (void)parallel, (void)context, -1;
}

#endif
