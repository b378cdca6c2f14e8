/* One operand of a multiplication: W with x in the format that it needs. Whoever divides the work (matmul.c, experts.c) includes
 * this. */
#ifndef INTAGLIO_OPERAND_H
#define INTAGLIO_OPERAND_H

#include "common/sizes.h"
#include "matmul/repacked.h"

enum {
  GEMV_ROWS = 12,     /* rows of x up to which reading the weights takes the time */
  UNPACK_ROWS = 32,   /* rows of x from which on weights are unpacked */
  ROWS_IN_CACHE = 96, /* rows of y that are computed before they are gated, quantized or added */
  LONG_ROW = 2048,    /* elements of a row of W above which fewer rows of W stay in the cache */
};

ALWAYS_INLINE size_t aligned(size_t bytes) { return plus(bytes, LINE - 1) / LINE * LINE; }

/* Return whether weights are repacked to int8, for a long sequence: those of 4 and 5 bits, and those of 8 bits that are multiplied as
 * they are. */
ALWAYS_INLINE int is_repacked(const PackedWeights *w, int is_long) {
  const int fits = w->shape.bits != 8 || (w->shape.block_size >= SPAN && !w->asymmetric);
  return fits && w->with->quantize_panels != NULL && is_long;
}

/* Return whether weights are brought into another form first: repacked, or unpacked for many rows of x. */
ALWAYS_INLINE int is_transformed(const PackedWeights *w, int64_t m, int is_long) {
  if (w->with->quantize_panels != NULL) return is_repacked(w, is_long);
  return w->shape.bits != 8 && w->with->repack != NULL && m >= UNPACK_ROWS;
}

/* Return how many elements of x share a scale. */
ALWAYS_INLINE int step_of(const PackedWeights *w, int is_long) {
  return is_repacked(w, is_long) ? REPACK_STEP : w->shape.block_size == 16 ? 16 : 32;
}

/* Return how many bytes the other form of these tiles has, or 0 if they are multiplied as they are. */
ALWAYS_INLINE size_t repacked_bytes(const PackedWeights *w, int64_t m, int is_long, int64_t tiles) {
  return is_transformed(w, m, is_long) ? aligned(times(tiles, w->with->repacked_tile_bytes(w))) : 0;
}

/* Return how many tiles stay in the cache while they are multiplied with all rows. */
ALWAYS_INLINE int64_t tiles_at_once(const PackedWeights *w) { return w->shape.k <= LONG_ROW ? 2 * TILES : TILES; }

/* ---- x ------------------------------------------------------------------------------------------------------------ */

ALWAYS_INLINE size_t quantized_bytes(int64_t m, int64_t k, int step) {
  const int64_t padded = ceil_div(k, CHUNK) * CHUNK;
  if (step == REPACK_STEP) return times(ceil_div(m, PANEL), panel_bytes(padded));
  return aligned(times(m, row_bytes(padded, step)));
}

/* Place m rows of k elements at *memory, and move *memory past them. */
ALWAYS_INLINE Quantized place_rows(uint8_t **memory, int64_t m, int64_t k, int step) {
  const Quantized x = {ceil_div(k, CHUNK) * CHUNK, step, *memory};
  *memory += quantized_bytes(m, k, step);
  return x;
}

ALWAYS_INLINE void quantize(const Instructions *with, const Quantized *to, int64_t row, int64_t column, const float *x,
                            int64_t count, int64_t end) {
  (to->step == REPACK_STEP ? with->quantize_panels : with->quantize)(to, row, column, x, count, end);
}

/* ---- multiplication ---------------------------------------------------------------------------------------------- */

typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const float *bias;
  uint8_t *repacked; /* memory for repacked tiles, or NULL */
} Operand;

/* Multiply rows first .. last with tiles from .. to. `y` points to the first row and column. */
ALWAYS_INLINE void multiply(const Operand *operand, int64_t first, int64_t last, int64_t from, int64_t to, float *y,
                            int64_t stride) {
  const PackedWeights *w = operand->w;
  const Job job = {w, operand->x, operand->bias, operand->repacked, y, stride, from * LANES, first, last};
  if (operand->repacked != NULL) w->with->multiply_repacked(&job, from, to);
  else w->with->multiply[place_of(w->shape.bits)][w->shape.block_size > 16][w->asymmetric](&job, from, to);
}

#endif
