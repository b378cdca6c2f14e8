/* Quantized weights among the inputs and attributes of an operator. */
#ifndef INTAGLIO_WEIGHT_INPUTS_H
#define INTAGLIO_WEIGHT_INPUTS_H

#include "matmul/weights.h"
#include "ort/node.h"

/* The inputs of one matrix, counted from its first. */
enum { CODES, SCALES, ZERO_POINTS, WEIGHT_INPUTS };

typedef struct {
  MatMulShape shape;
  PackedWeights *weights;
} Matrix;

/* Pack the matrix whose inputs begin at `first`, and whose low bits are input `low_bits`, unless the node is refused. Its
 * attributes are those of MatMulNBits, with `suffix` appended to the names. */
Matrix create_matrix(Node *node, size_t first, size_t low_bits, const char *suffix);

/* Check that a bias, which may be absent, has an element for each row of a matrix; return its elements, or NULL. */
const float *check_bias(Node *node, const Tensor *bias, const MatMulShape *shape);

#endif
