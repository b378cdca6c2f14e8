#include "matmul/weight_inputs.h"

#include <stdio.h>

#include "common/sizes.h"
#include "matmul/block_format.h"

enum { NAME_BYTES = 32 };
static const int64_t most_rows = (int64_t)1 << 48; /* and columns: as many as any memory has bytes */

static int64_t suffixed(Node *node, const char *name, const char *suffix, int64_t absent, int64_t least, int64_t most) {
  char full[NAME_BYTES];
  snprintf(full, sizeof full, "%s%s", name, suffix);
  return integer_attribute(node, full, absent, least, most);
}

static MatMulShape read_shape(Node *node, size_t low_bits, const char *suffix) {
  const int64_t bits = suffixed(node, "bits", suffix, 4, 4, 8);
  const int64_t size = suffixed(node, "block_size", suffix, 0, 16, 256);
  MatMulShape shape = {
      .n = suffixed(node, "N", suffix, 0, 1, most_rows),
      .k = suffixed(node, "K", suffix, 0, 1, most_rows),
      .bits = (int)bits,
      .block_size = (int)size,
  };
  suffixed(node, "accuracy_level", suffix, 0, 4, 4);
  suffixed(node, "weight_prepacked", suffix, 0, 0, 0);
  check_block_format(node, shape.bits, size, suffix, low_bits);
  if (node->status == NULL) shape.blocks = (shape.k + size - 1) / size;
  return shape;
}

/* Check that scales or zero points have `columns` columns, in two dimensions or in one. */
static void check_columns(Node *node, const Tensor *tensor, const char *meaning, const MatMulShape *shape,
                          int64_t columns) {
  const int64_t sizes[] = {shape->n, columns};
  if (tensor->rank == 1 && tensor->sizes[0] == count_of(sizes, 2)) return;
  check_shape(node, tensor, meaning, sizes, 2);
}

static StoredWeights read_weights(Node *node, size_t first, size_t low_at, const MatMulShape *shape) {
  StoredWeights stored = {0};
  const Tensor codes = constant_input(node, first + CODES), scales = constant_input(node, first + SCALES);
  const Tensor zero_points = constant_input(node, first + ZERO_POINTS);
  const Tensor low_bits = constant_input(node, low_at);
  const int zeros_computed = has_input(node, first + ZERO_POINTS) && !zero_points.given;
  const int low_computed = has_input(node, low_at) && !low_bits.given;
  if (node->status != NULL) return stored;
  const Tensor *computed_one = !codes.given     ? &codes
                               : !scales.given  ? &scales
                               : zeros_computed ? &zero_points
                               : low_computed   ? &low_bits
                                                : NULL;
  if (computed_one != NULL) {
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s is computed; it must be a constant of the graph", computed_one->name);
    return stored;
  }
  check_floats(node, &scales);
  const int bits = stored_bits(shape->bits), zeros = zero_bits(shape->bits);
  if (shape->bits != FIVE_BITS) {
    CHECK_SHAPE(node, &codes, "[N, ceil(K / block_size), block_size * bits / 8]", shape->n, shape->blocks,
                shape->block_size * bits / 8);
  } else {
    CHECK_SHAPE(node, &codes, "[N, ceil(K / block_size), block_size / 2]", shape->n, shape->blocks,
                shape->block_size * bits / 8);
    CHECK_SHAPE(node, &low_bits, "[N, ceil(K / block_size), block_size / 8]", shape->n, shape->blocks,
                shape->block_size / 8);
  }
  check_columns(node, &scales, "[N, ceil(K / block_size)]", shape, shape->blocks);
  if (zero_points.given)
    check_columns(node, &zero_points, shape->bits == FIVE_BITS ? "[N, blocks]" : "[N, ceil(blocks * bits / 8)]", shape,
                  (shape->blocks * zeros + 7) / 8);
  stored.weights = codes.data;
  stored.low_bits = low_bits.data;
  stored.scales = scales.data;
  stored.halves = scales.type == FLOAT16;
  stored.zero_points = zero_points.data;
  return stored;
}

Matrix create_matrix(Node *node, size_t first, size_t low_bits, const char *suffix) {
  Matrix matrix = {.shape = read_shape(node, low_bits, suffix)};
  const StoredWeights stored = read_weights(node, first, low_bits, &matrix.shape);
  if (node->status == NULL && !matmul_packable(&matrix.shape, &stored))
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s has a number that is not finite, or not below 2^100",
           node->op->inputs[first + SCALES].name);
  if (node->status != NULL) return matrix;
  matrix.weights = matmul_pack(&matrix.shape, &stored);
  if (matrix.weights == NULL) refuse_memory(node);
  return matrix;
}

const float *check_bias(Node *node, const Tensor *bias, const MatMulShape *shape) {
  if (!bias->given) return NULL;
  CHECK_SHAPE(node, bias, "[N]", shape->n);
  return bias->data;
}
