/* GEMM with int8 weights for long sequences: weights of 4 bits are repacked to int8, where SPAN elements of a row share a
 * scale, and REPACK_STEP elements of a row of x do. It is faster for many rows of x. AVX512-VNNI and AMX return the same bits. */
#ifndef INTAGLIO_REPACKED_H
#define INTAGLIO_REPACKED_H

#include "matmul/instructions.h"

enum {
  REPACK_ROWS = 64,    /* rows of a sequence from which on weights are repacked */
  REPACK_LEAST = 8,    /* the fewest rows that can be multiplied with them */
  REPACK_STEP = CHUNK, /* elements of x that share a scale */
  SPAN = 128,          /* elements of a row of W that share a scale */
  PANEL = 16,          /* rows of x that are stored together */
  DEPTH = 1024, /* elements of a row that are multiplied with all rows of x: two tiles' stay in the first cache */
};

/* x quantized with steps of REPACK_STEP is in panels of PANEL rows, of which the last one may have fewer:
 *
 *     elements  [steps][PANEL][REPACK_STEP] int8
 *     scales    [steps][PANEL] float32; NaN if an element is not finite
 *     starts    [steps][PANEL] int32, -128 times the sum of the elements: the start of sums with weights stored plus 128
 */
ALWAYS_INLINE int64_t steps_of(int64_t padded) { return padded / REPACK_STEP; }

ALWAYS_INLINE int64_t panel_bytes(int64_t padded) {
  return steps_of(padded) * PANEL * (REPACK_STEP + (int64_t)(sizeof(float) + sizeof(int32_t)));
}

ALWAYS_INLINE uint8_t *panel_of(const Quantized *x, int64_t row) {
  return x->rows + row / PANEL * panel_bytes(x->padded);
}

ALWAYS_INLINE float *panel_scales(const Quantized *x, uint8_t *panel) { return (float *)(panel + x->padded * PANEL); }

ALWAYS_INLINE int32_t *panel_starts(const Quantized *x, uint8_t *panel) {
  return (int32_t *)(panel_scales(x, panel) + steps_of(x->padded) * PANEL);
}

/* A repacked tile is [K / 4][16 lanes] words of four elements, K a multiple of CHUNK, followed by the scales, [spans][16
 * lanes] float32. `repack` stores elements plus 128, `repack_signed` as they are. */
ALWAYS_INLINE const float *tile_scales(const PackedWeights *w, const uint8_t *tile) {
  return (const float *)(tile + w->padded * LANES);
}

/* Multiply `rows` rows of x with two tiles, whose repacked `bytes` are given, elements from .. to of them: y is the start of
 * the sums unless from is 0, and the bias is added at the end. */
typedef void (*MultiplyPair)(const Job *job, const int64_t tiles[2], const uint8_t *const bytes[2], int64_t row,
                             int64_t rows, int64_t from, int64_t to);

/* Multiply with tiles from .. to, two at a time, at most `most` rows of x and DEPTH elements at a time. */
ALWAYS_INLINE void multiply_pairs(const Job *job, int64_t from, int64_t to, int64_t most, size_t tile_bytes,
                                  MultiplyPair multiply) {
  const int64_t all = job->x->padded;
  for (int64_t k = 0; k < all; k += DEPTH) {
    for (int64_t tile = from; tile < to; tile += 2) {
      const int64_t tiles[2] = {tile, smaller(tile + 1, to - 1)}; /* the last is computed twice if it has no other */
      const uint8_t *const bytes[2] = {job->repacked + (tiles[0] - from) * tile_bytes,
                                       job->repacked + (tiles[1] - from) * tile_bytes};
      for (int64_t row = job->first_row; row < job->last_row; row += most)
        multiply(job, tiles, bytes, row, smaller(most, job->last_row - row), k, smaller(k + DEPTH, all));
    }
  }
}

/* Members of Instructions. */
void quantize_panels(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count, int64_t end);
size_t repacked_tile_bytes(const PackedWeights *w);
void repack(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory);
void repack_signed(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory);
void multiply_repacked(const Job *job, int64_t from, int64_t to);
void multiply_amx(const Job *job, int64_t from, int64_t to); /* after `repack_signed` */

/* Return whether this processor has AMX, and Linux lets this process use it. */
int amx_supported(void);

#endif
