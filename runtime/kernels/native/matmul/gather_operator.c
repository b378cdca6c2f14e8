/* The operator GatherBlockQuantized: rows of a quantized embedding, looked up and dequantized; scales are float32 or float16.
 * It has an input more for elements of 5 bits (weights.h), in blocks of 32 and more.
 *
 * Supported are data of uint8, gathered along the first axis and quantized along the last, without zero points. So a row is a
 * number of consecutive blocks, whatever its dimensions are.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.GatherBlockQuantized.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/half.h"
#include "common/sizes.h"
#include "matmul/block_format.h"
#include "matmul/weights.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { DATA, INDICES, SCALES, ZERO_POINTS, LOW_BITS };
enum { TOKENS_PER_TASK = 16 };

static const Value inputs[] = {{"data", UINT8, REQUIRED},
                               {"indices", INT64, REQUIRED},
                               {"scales", ANY, REQUIRED},
                               {"zero_points", UINT8, OPTIONAL},
                               {"low_bits", UINT8, OPTIONAL}};
static const Value outputs[] = {{"output", FLOAT, REQUIRED}};
static const Operator definition = DEFINE("GatherBlockQuantized", inputs, outputs);

typedef struct {
  const OrtApi *api;
  int bits;
  int64_t block_size, quantize_axis;
} Kernel;

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  Node node = created_node(api, &definition, info);
  const Kernel made = {
      .api = api,
      .bits = (int)integer_attribute(&node, "bits", 4, 4, 8),
      .block_size = integer_attribute(&node, "block_size", 128, 16, 1 << 24),
      .quantize_axis = integer_attribute(&node, "quantize_axis", 1, 1, MAX_RANK - 1),
  };
  integer_attribute(&node, "gather_axis", 0, 0, 0);
  check_block_format(&node, made.bits, made.block_size, "", LOW_BITS);
  check_no_input(&node, ZERO_POINTS, "zero points are not supported");
  Kernel *kernel = node.status == NULL ? malloc(sizeof *kernel) : NULL;
  if (kernel == NULL) {
    refuse_memory(&node);
    return node.status;
  }
  *kernel = made;
  *out = kernel;
  return NULL;
}

typedef struct {
  int bits, halves;
  int64_t count, rows, blocks, block_size; /* indices; rows of the table; blocks of a row */
  const uint8_t *data, *low_bits;          /* low_bits is NULL but with 5 bits */
  const int64_t *indices;
  const void *scales;
  float *to;
} Call;

/* Return an element of a block, less the zero point. */
static int element_of(const Call *call, const uint8_t *block, const uint8_t *low_bits, int64_t e) {
  if (call->bits == 8) return block[e] - 128;
  const int upper = block[e / 2] >> e % 2 * 4 & 15;
  if (call->bits == 4) return upper - 8;
  return (upper << 4 | (low_bits[e / LOW_STEP * 4 + e % 4] >> e % LOW_STEP / 4 & 1) << 3) - 128;
}

static void gather_row(const Call *call, int64_t row, float *to) {
  const int64_t size = call->block_size, bytes = size * stored_bits(call->bits) / 8;
  const uint8_t *from = call->data + row * call->blocks * bytes;
  const uint8_t *low_bits = call->low_bits == NULL ? NULL : call->low_bits + row * call->blocks * (size / 8);
  for (int64_t block = 0; block < call->blocks; block++, to += size, from += bytes) {
    const int64_t at = row * call->blocks + block;
    const float scale =
        call->halves ? half_to_float(((const uint16_t *)call->scales)[at]) : ((const float *)call->scales)[at];
    for (int64_t e = 0; e < size; e++) to[e] = (float)element_of(call, from, low_bits, e) * scale;
    if (low_bits != NULL) low_bits += size / 8;
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

/* Check that the table is quantized along its last axis, and that the scales have its shape but one for each block. Set
 * `sizes` to the shape of the table's elements. */
static void check_table(Node *node, const Kernel *kernel, const Tensor *table, const Tensor *scales,
                        const Tensor *low_bits, int64_t *sizes) {
  if (node->status != NULL) return;
  if (table->rank < 2 || kernel->quantize_axis != (int64_t)table->rank - 1)
    refuse(node, ORT_NOT_IMPLEMENTED,
           "attribute quantize_axis is %" PRId64 "; it must be the last axis of data, which has %d dimensions",
           kernel->quantize_axis, (int)table->rank);
  check_floats(node, scales);
  if (node->status != NULL) return;
  const size_t last = table->rank - 1;
  int64_t blocks[MAX_RANK];
  for (size_t axis = 0; axis < last; axis++) blocks[axis] = sizes[axis] = table->sizes[axis];
  if (__builtin_mul_overflow(table->sizes[last], 8 / stored_bits(kernel->bits), &sizes[last]) ||
      sizes[last] % kernel->block_size != 0) {
    refuse(node, ORT_NOT_IMPLEMENTED,
           "input data has %" PRId64 " bytes in its last dimension, with block_size %" PRId64 " and %d bits",
           table->sizes[last], kernel->block_size, kernel->bits);
    return;
  }
  blocks[last] = sizes[last] / kernel->block_size;
  check_shape(node, scales, "the shape of data in blocks", blocks, table->rank);
  blocks[last] = sizes[last] / 8;
  if (kernel->bits == FIVE_BITS) check_shape(node, low_bits, "the shape of data, in bits", blocks, table->rank);
}

static void check_indices(Node *node, const Call *call) {
  for (int64_t at = 0; node->status == NULL && at < call->count; at++)
    if (call->indices[at] < -call->rows || call->indices[at] >= call->rows)
      refuse(node, ORT_INVALID_ARGUMENT,
             "input indices has the index %" PRId64 " at %" PRId64 "; data has %" PRId64 " rows", call->indices[at], at,
             call->rows);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  Node node = running_node(kernel->api, &definition, context);
  const Tensor table = input(&node, DATA), indices = input(&node, INDICES), scales = input(&node, SCALES);
  const Tensor low_bits = input(&node, LOW_BITS);
  int64_t elements[MAX_RANK], sizes[MAX_RANK];
  check_table(&node, kernel, &table, &scales, &low_bits, elements);
  if (table.rank + indices.rank > MAX_RANK + 1)
    refuse(&node, ORT_NOT_IMPLEMENTED, "inputs data and indices have %d and %d dimensions; that is more than %d",
           (int)table.rank, (int)indices.rank, MAX_RANK + 1);
  if (node.status != NULL) return node.status;
  Call call = {
      .bits = kernel->bits,
      .halves = scales.type == FLOAT16,
      .count = element_count(&indices),
      .rows = elements[0],
      .blocks = count_of(elements + 1, table.rank - 1) / kernel->block_size,
      .block_size = kernel->block_size,
      .data = table.data,
      .low_bits = low_bits.data,
      .indices = indices.data,
      .scales = scales.data,
  };
  check_indices(&node, &call);
  for (size_t axis = 0; axis < indices.rank; axis++) sizes[axis] = indices.sizes[axis];
  for (size_t axis = 1; axis < table.rank; axis++) sizes[indices.rank + axis - 1] = elements[axis];
  call.to = output(&node, 0, sizes, indices.rank + table.rank - 1);
  if (node.status != NULL || call.count == 0 || call.blocks == 0) return node.status;
  Pool pool = {kernel->api, context};
  run_parallel(&pool, gather, (call.count + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK, &call);
  return NULL;
}

OPERATOR(gather_block_quantized, definition, create, compute, free)
