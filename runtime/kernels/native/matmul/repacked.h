/* GEMM with weights of 4 bits repacked to int8: faster for many rows of x. */
#ifndef INTAGLIO_REPACKED_H
#define INTAGLIO_REPACKED_H

#include "matmul/instructions.h"

enum {
  REPACK_ROWS = 64, /* rows of a sequence from which on weights are repacked */
  REPACK_LEAST = 8, /* the fewest rows that can be multiplied with them */
  REPACK_STEP = 32, /* elements of x that share a scale */
};

/* Members of Instructions. */
size_t repacked_tile_bytes(const PackedWeights *w);
void repack(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory);
void multiply_repacked(const Job *job, int64_t from, int64_t to);

#endif
