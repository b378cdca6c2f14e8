/* Products of many rows of x, where weights of 4 bits are worth a conversion. */
#ifndef INTAGLIO_COARSE_H
#define INTAGLIO_COARSE_H

#include "matmul/instructions.h"

enum { COARSE_ROWS = 64 /* of x, from which on it is worth it */, COARSE_STEP = 32 /* elements of x that share a scale */ };

/* As Instructions has them. */
size_t coarse_tile_bytes(const PackedWeights *w);
void coarsen(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory);
void multiply_coarse(const Job *job, int64_t from, int64_t to);

#endif
