#include "matmul/weight_inputs.h"

#include <stdio.h>

static int64_t suffixed(const OrtApi *api, const OrtKernelInfo *info, const char *name, const char *suffix) {
  char full[32];
  snprintf(full, sizeof full, "%s%s", name, suffix);
  return attribute(api, info, full, 0);
}

OrtStatus *create_matrix(const OrtApi *api, const OrtKernelInfo *info, size_t first, const char *suffix,
                         Matrix *matrix) {
  MatMulShape shape = {
      .n = suffixed(api, info, "N", suffix),
      .k = suffixed(api, info, "K", suffix),
      .bits = (int)suffixed(api, info, "bits", suffix),
      .block_size = (int)suffixed(api, info, "block_size", suffix),
  };
  if (shape.bits == 0) shape.bits = 4; /* the operator's default */
  const int size = shape.block_size, power_of_two = (size & (size - 1)) == 0;
  if (shape.n < 1 || shape.k < 1 || (shape.bits != 4 && shape.bits != 8) || size < 16 || size > 256 || !power_of_two)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of 4 or 8 bits in blocks of 16 to 256 only");
  if (suffixed(api, info, "accuracy_level", suffix) != 4)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of accuracy_level 4 only");
  shape.blocks = (shape.k + size - 1) / size;
  int type = 0;
  const StoredWeights stored = {
      .weights = constant(api, info, first + CODES, NULL),
      .scales = constant(api, info, first + SCALES, &type),
      .halves = type == FLOAT16,
      .zero_points = constant(api, info, first + ZERO_POINTS, NULL),
  };
  if (stored.weights == NULL || stored.scales == NULL || (type != FLOAT && type != FLOAT16))
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with constant weights and scales only");
  if (!matmul_packable(&shape, &stored))
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with scales that float16 represents exactly only");
  *matrix = (Matrix){shape, matmul_pack(&shape, &stored)};
  return matrix->weights != NULL ? NULL : fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
}
