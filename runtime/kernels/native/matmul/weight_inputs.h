/* Quantized weights among the inputs and attributes of an operator. */
#ifndef INTAGLIO_WEIGHT_INPUTS_H
#define INTAGLIO_WEIGHT_INPUTS_H

#include "matmul/weights.h"
#include "ort/ort.h"

/* The inputs of one matrix, counted from its first. */
enum { CODES, SCALES, ZERO_POINTS, WEIGHT_INPUTS };

typedef struct {
  MatMulShape shape;
  PackedWeights *weights;
} Matrix;

/* Pack the matrix whose inputs begin at `first`. Its attributes are those of MatMulNBits, with `suffix` appended to the names. */
OrtStatus *create_matrix(const OrtApi *api, const OrtKernelInfo *info, size_t first, const char *suffix,
                         Matrix *matrix);

#endif
