/* Weights among the inputs and attributes of an operator. */
#ifndef INTAGLIO_WEIGHTS_OP_H
#define INTAGLIO_WEIGHTS_OP_H

#include "ort/ort.h"
#include "matmul/weights.h"

/* The inputs of one matrix, from its first on. */
enum { CODES, SCALES, ZERO_POINTS, WEIGHT_INPUTS };

typedef struct {
  MatMulShape shape;
  PackedWeights *weights;
} Matrix;

/* Packs the matrix whose inputs begin at `first`; the names of its attributes, those of MatMulNBits, end with `suffix`. */
OrtStatus *create_matrix(const OrtApi *api, const OrtKernelInfo *info, size_t first, const char *suffix, Matrix *matrix);

#endif
