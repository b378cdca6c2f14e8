/* The operator GatherBlockQuantized: rows of a quantized embedding, looked up and dequantized; scales are float32 or float16.
 *
 * Supported are data of uint8, gathered along the first axis and quantized along the last, without zero points. So a row is a
 * number of consecutive blocks, whatever its dimensions are.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.GatherBlockQuantized.
 */
#include <stdlib.h>

#include "common/half.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { DATA, INDICES, SCALES, ZERO_POINTS, INPUTS };
enum { OUTPUTS = 1, TOKENS_PER_TASK = 16 };

typedef struct {
  const OrtApi *api;
  int bits;
  int64_t block_size, quantize_axis;
} Kernel;

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  const Kernel made = {api, (int)attribute(api, info, "bits", 4), attribute(api, info, "block_size", 128),
                       attribute(api, info, "quantize_axis", 1)};
  if ((made.bits != 4 && made.bits != 8) || made.block_size < 16 || made.quantize_axis < 1 ||
      attribute(api, info, "gather_axis", 0) != 0 || constant(api, info, ZERO_POINTS, NULL) != NULL)
    return fail(api, ORT_NOT_IMPLEMENTED,
                "intaglio: GatherBlockQuantized with these attributes or inputs is not supported");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  *kernel = made;
  *out = kernel;
  return NULL;
}

typedef struct {
  int bits, halves;
  int64_t count, rows, blocks, block_size; /* indices; rows of the table; blocks of a row */
  const uint8_t *data;
  const int64_t *indices;
  const void *scales;
  float *to;
} Call;

static void gather_row(const Call *call, int64_t row, float *to) {
  const int64_t size = call->block_size;
  const uint8_t *from = call->data + row * call->blocks * size * call->bits / 8;
  for (int64_t block = 0; block < call->blocks; block++, to += size, from += size * call->bits / 8) {
    const int64_t at = row * call->blocks + block;
    const float scale =
        call->halves ? half_to_float(((const uint16_t *)call->scales)[at]) : ((const float *)call->scales)[at];
    for (int64_t e = 0; e < size; e++) {
      const int code = call->bits == 8 ? from[e] - 128 : (from[e / 2] >> e % 2 * 4 & 15) - 8;
      to[e] = (float)code * scale;
    }
  }
}

static void gather(void *data, size_t task) {
  const Call *call = data;
  const int64_t from = (int64_t)task * TOKENS_PER_TASK;
  for (int64_t at = from; at < from + TOKENS_PER_TASK && at < call->count; at++) {
    const int64_t row = call->indices[at];
    gather_row(call, row < 0 ? row + call->rows : row, call->to + at * call->blocks * call->block_size);
  }
}

static int64_t product(const int64_t *sizes, size_t count) {
  int64_t all = 1;
  for (size_t axis = 0; axis < count; axis++) all *= sizes[axis];
  return all;
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  Tensor in[INPUTS];
  OrtStatus *status = get_inputs(api, context, in, INPUTS);
  if (status != NULL) return status;
  Tensor *table = &in[DATA];
  const Tensor *indices = &in[INDICES], *scales = &in[SCALES];
  const size_t last = table->rank - 1;
  if (table->rank < 2 || kernel->quantize_axis != (int64_t)last || in[ZERO_POINTS].data != NULL ||
      table->rank + indices->rank - 1 > MAX_RANK || (scales->type != FLOAT && scales->type != FLOAT16))
    return fail(api, ORT_NOT_IMPLEMENTED,
                "intaglio: GatherBlockQuantized with these attributes or inputs is not supported");
  table->sizes[last] = table->sizes[last] * 8 / kernel->bits;
  const int64_t width = product(table->sizes + 1, last);
  if (table->sizes[last] % kernel->block_size != 0 || scales->rank != table->rank ||
      product(scales->sizes, scales->rank) != table->sizes[0] * (width / kernel->block_size))
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: GatherBlockQuantized's scales do not fit its table");
  Call call = {
      .bits = kernel->bits,
      .halves = scales->type == FLOAT16,
      .count = product(indices->sizes, indices->rank),
      .rows = table->sizes[0],
      .blocks = width / kernel->block_size,
      .block_size = kernel->block_size,
      .data = table->data,
      .indices = indices->data,
      .scales = scales->data,
  };
  for (int64_t at = 0; at < call.count; at++)
    if (call.indices[at] < -call.rows || call.indices[at] >= call.rows)
      return fail(api, ORT_INVALID_ARGUMENT, "intaglio: GatherBlockQuantized's indices are out of range");
  int64_t sizes[MAX_RANK];
  for (size_t axis = 0; axis < indices->rank; axis++) sizes[axis] = indices->sizes[axis];
  for (size_t axis = 1; axis < table->rank; axis++) sizes[indices->rank + axis - 1] = table->sizes[axis];
  status = get_output(api, context, 0, sizes, indices->rank + last, (void **)&call.to);
  if (status != NULL || call.count == 0) return status;
  Pool pool = {api, context};
  run_parallel(&pool, gather, (call.count + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK, &call);
  return NULL;
}

static const int input_types[INPUTS] = {UINT8, INT64, ANY, UINT8};
static const int input_kinds[INPUTS] = {REQUIRED, REQUIRED, REQUIRED, OPTIONAL};
static const int output_types[OUTPUTS] = {FLOAT};
static const int output_kinds[OUTPUTS] = {REQUIRED};

OPERATOR(gather_block_quantized, "GatherBlockQuantized", input_types, output_types, create, free)
