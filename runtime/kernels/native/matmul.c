/* Packing, and the products' tasks. What is done with vectors is in the file of an instruction set. */
#define _GNU_SOURCE
#include "matmul.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <stdlib.h>
#include <strings.h>

#include "half.h"
#include "instructions.h"
#include "memory.h"
#include "pages.h"
#include "threads.h"

enum {
  FEW_ROWS = 12, /* of x: so few are quantized at once, and make the weights all that is read */
  PIECE = 1 << 24, /* bytes of stored weights after which their pages are forgotten: they are not all there at once */
};

/* The best first. */
static const Instructions *const known[] = {&avx512_vnni, &avx_vnni, &avx2};

/* The best that this processor has, or NULL. INTAGLIO_KERNELS names the only one that may be used. */
static const Instructions *best(void) {
  const char *only = getenv("INTAGLIO_KERNELS");
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if ((only == NULL || strcasecmp(only, known[i]->name) == 0) && known[i]->supported()) return known[i];
  return NULL;
}

const char *matmul_instructions(void) {
  const Instructions *found = best();
  return found == NULL ? NULL : found->name;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* ---- packing ------------------------------------------------------------------------------------------------------ */

static uint8_t zero_point(const uint8_t *row, int64_t block, int bits) {
  if (bits == 8) return row[block];
  return block % 2 ? row[block / 2] >> 4 : row[block / 2] & 15;
}

static uint16_t scale_at(const StoredWeights *stored, int64_t index) {
  return stored->halves ? ((const uint16_t *)stored->scales)[index] : to_half(((const float *)stored->scales)[index]);
}

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) {
  for (int64_t i = 0; !stored->halves && i < shape->n * shape->blocks; i++)
    if (!is_half(((const float *)stored->scales)[i])) return 0;
  return 1;
}

static void pack_tile(const PackedWeights *packed, const StoredWeights *stored, int64_t tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = shape->bits;
  const int64_t bytes = shape->blocks * shape->block_size * bits / 8, stride = ceil_div(shape->blocks * bits, 8);
  uint8_t *to = packed->tiles + tile * packed->tile_bytes;
  int64_t rows[LANES];
  const uint8_t *weights[LANES];
  for (int lane = 0; lane < LANES; lane++) {
    rows[lane] = smaller(tile * LANES + lane, shape->n - 1);
    weights[lane] = stored->weights + rows[lane] * bytes;
  }
  for (int64_t block = 0; block < shape->blocks; block++) {
    for (int lane = 0; lane < LANES; lane++) {
      ((uint16_t *)(to + scales_at(packed, block)))[lane] = scale_at(stored, rows[lane] * shape->blocks + block);
      if (packed->asymmetric)
        to[zero_points_at(packed, block) + lane] = zero_point(stored->zero_points + rows[lane] * stride, block, bits);
    }
  }
  packed->with->pack(packed, weights, bytes, to);
}

static size_t packed_bytes(const PackedWeights *packed) { return ceil_div(packed->shape.n, LANES) * packed->tile_bytes; }

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  PackedWeights *packed = malloc(sizeof *packed);
  if (packed == NULL) return NULL;
  packed->with = best();
  packed->shape = *shape;
  packed->asymmetric = stored->zero_points != NULL;
  packed->first = 0;
  packed->padded = ceil_div(shape->k, CHUNK) * CHUNK;
  packed->block_bytes = shape->block_size * LANES * shape->bits / 8;
  packed->tile_bytes = block_at(packed, shape->blocks - 1) + packed->block_bytes;
  packed->tiles = packed->with == NULL ? NULL : allocate_weights(packed_bytes(packed));
  if (packed->tiles == NULL) {
    free(packed);
    return NULL;
  }
  const int64_t sizes[] = { /* of a row */
      shape->blocks * shape->block_size * shape->bits / 8,
      shape->blocks * (int64_t)(stored->halves ? sizeof(uint16_t) : sizeof(float)),
      packed->asymmetric ? ceil_div(shape->blocks * shape->bits, 8) : 0,
  };
  Pages pages[] = {
      {stored->weights, shape->n * sizes[0], 0},
      {stored->scales, shape->n * sizes[1], 0},
      {stored->zero_points, shape->n * sizes[2], 0},
  };
  const int parts = sizeof pages / sizeof *pages;
  look_up_pages(pages, parts);
  const int64_t tiles = ceil_div(shape->n, LANES);
  int64_t done = 0; /* rows whose stored weights are forgotten */
  for (int64_t tile = 0; tile < tiles; tile++) {
    pack_tile(packed, stored, tile);
    const int64_t rows = smaller((tile + 1) * LANES, shape->n);
    if ((rows - done) * sizes[0] < PIECE && tile + 1 < tiles) continue;
    for (int part = 0; part < parts; part++) forget_pages(&pages[part], done * sizes[part], rows * sizes[part]);
    done = rows;
  }
  return packed;
}

void matmul_free(PackedWeights *packed) {
  if (packed != NULL) free_weights(packed->tiles, packed_bytes(packed));
  free(packed);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* Pairs of tiles stay together where many rows share what is loaded of x between them. */
static int64_t tiles_together(int64_t m) { return m > FEW_ROWS ? 2 : 1; }

static void multiply_part(void *data, size_t task) {
  const Job *job = data;
  const PackedWeights *w = job->w;
  const int64_t tiles = ceil_div(w->shape.n, LANES), unit = tiles_together(job->m), units = ceil_div(tiles, unit);
  const Range range = w->with->multiply[w->shape.bits == 8][w->shape.block_size > 16][w->asymmetric];
  range(job, units * (int64_t)task / job->tasks * unit,
        smaller(units * ((int64_t)task + 1) / job->tasks * unit, tiles));
}

/* Some rows of the sums, which lie one behind the other then: a task's columns of all rows lie far apart. */
static void gate_part(void *data, size_t task) {
  const Job *job = data;
  const int64_t n = job->w->shape.n, from = (int64_t)task * FEW_ROWS, to = smaller(from + FEW_ROWS, job->m);
  job->w->with->gate(job->finish.gate + from * n, job->y + from * n, (to - from) * n);
}

typedef struct {
  const Instructions *with;
  const Quantized *to;
  const float *x;
  int64_t m, k;
  int step, factor;
} QuantizeJob;

static void quantize_part(void *data, size_t task) {
  const QuantizeJob *job = data;
  const int64_t from = (int64_t)task * FEW_ROWS, to = smaller(from + FEW_ROWS, job->m);
  for (int64_t row = from; row < to; row++)
    job->with->quantize(job->to, row, job->x + row * job->k, job->k, job->step, job->factor);
}

int matmul(const PackedWeights *w, const float *x, Finish finish, float *y, int64_t m, ParallelFor parallel,
           void *context) {
  const int step = w->shape.block_size == 16 ? 16 : 32;
  const size_t q_bytes = aligned(m * w->padded), scale_bytes = aligned(m * (w->padded / step) * sizeof(float));
  uint8_t *memory = aligned_alloc(64, q_bytes + scale_bytes + aligned(m * (w->padded / step) * sizeof(int32_t)));
  if (memory == NULL) return -1;
  Quantized quantized = {w->padded, (int8_t *)memory, (float *)(memory + q_bytes),
                         (int32_t *)(memory + q_bytes + scale_bytes)};
  const int widened = w->shape.bits == 4 && w->with->wide_rows > 0 && m >= w->with->wide_rows;
  const int factor = widened || (w->shape.bits == 8 && !w->asymmetric) ? -128 : w->asymmetric ? -1 : -8;
  QuantizeJob first = {w->with, &quantized, x, m, w->shape.k, step, factor};
  if (m <= FEW_ROWS) quantize_part(&first, 0);
  else parallel(context, quantize_part, ceil_div(m, FEW_ROWS), &first);
  /* With few rows the weights are all that is read, each part of them in order: long parts, but more than there are
   * processors, since these are not equally free. */
  const int64_t parts = usable_processors() * (m <= FEW_ROWS ? 4 : 16);
  int failed = 0;
  Job job = {w, &quantized, finish, y, m, smaller(ceil_div(w->shape.n, LANES * tiles_together(m)), parts), &failed};
  parallel(context, multiply_part, job.tasks, &job);
  if (finish.gate != NULL && m <= FEW_ROWS) gate_part(&job, 0);
  else if (finish.gate != NULL) parallel(context, gate_part, ceil_div(m, FEW_ROWS), &job);
  free(memory);
  return failed ? -1 : 0;
}

#else

const char *matmul_instructions(void) { return NULL; }

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) { return (void)shape, (void)stored, 0; }

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  return (void)shape, (void)stored, NULL;
}

void matmul_free(PackedWeights *packed) { (void)packed; }

int matmul(const PackedWeights *weights, const float *x, Finish finish, float *y, int64_t m, ParallelFor parallel,
           void *context) {
  return (void)weights, (void)x, (void)finish, (void)y, (void)m, (void)parallel, (void)context, -1;
}

#endif
