/* The operator QMoE, for experts with SwiGLU: routing, the chosen experts and their sum.
 *
 * Supported are weights of 4 and 8 bits that are constants, in blocks, with rows of gate and up in turn (swiglu_fusion 1), scales
 * of float32 or float16, and int8 activations (accuracy_level 4); no biases, no FC3 and no limit of SwiGLU.
 * `normalize_routing_weights` divides the factors in router_weights by their sum. Without router_weights, factors are the
 * softmax of the chosen logits, whatever it is, as in ONNX Runtime's operator.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.QMoE.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "experts/experts.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { INPUT_X, INPUT_LOGITS, INPUT_UP, INPUT_DOWN = 5, INPUT_FC3 = 8, INPUT_WEIGHTS = 14 };
enum { CODES, SCALES, BIAS }; /* of each matrix, counted from its first input */

static const Value inputs[] = {
    {"input", FLOAT, REQUIRED},
    {"router_probs", FLOAT, REQUIRED},
    {"fc1_experts_weights", UINT8, REQUIRED},
    {"fc1_scales", ANY, REQUIRED},
    {"fc1_experts_bias", FLOAT, OPTIONAL},
    {"fc2_experts_weights", UINT8, REQUIRED},
    {"fc2_scales", ANY, REQUIRED},
    {"fc2_experts_bias", FLOAT, OPTIONAL},
    {"fc3_experts_weights", UINT8, OPTIONAL},
    {"fc3_scales", ANY, OPTIONAL},
    {"fc3_experts_bias", FLOAT, OPTIONAL},
    {"fc1_zero_points", UINT8, OPTIONAL},
    {"fc2_zero_points", UINT8, OPTIONAL},
    {"fc3_zero_points", UINT8, OPTIONAL},
    {"router_weights", FLOAT, OPTIONAL},
};
static const Value outputs[] = {{"output", FLOAT, REQUIRED}};
static const Operator definition = DEFINE("QMoE", inputs, outputs);

enum { INPUT_UP_ZEROS = 11, INPUT_DOWN_ZEROS, INPUT_FC3_ZEROS };

/* A matrix of every expert, as it is stored. */
typedef struct {
  int64_t experts;
  MatMulShape shape; /* of one */
  StoredWeights first;
  size_t weight_bytes, scale_bytes, zero_bytes; /* of one */
} Stored;

typedef struct {
  const OrtApi *api;
  Experts experts;
} Kernel;

static void destroy(void *state) {
  Kernel *kernel = state;
  const Experts *experts = &kernel->experts;
  for (int64_t i = 0; i < experts->routing.experts; i++) {
    if (experts->up != NULL) matmul_free(experts->up[i]);
    if (experts->down != NULL) matmul_free(experts->down[i]);
  }
  free(experts->up);
  free(experts->down);
  free(kernel);
}

/* ---- the weights ---------------------------------------------------------------------------------------------------- */

static void check_attributes(Node *node, int64_t bits) {
  static const char *const widths[] = {"fc1_expert_weight_bits", "fc2_expert_weight_bits", "fc3_expert_weight_bits"};
  check_text_attribute(node, "activation_type", "relu", "swiglu");
  check_text_attribute(node, "quant_type", "int", "int");
  integer_attribute(node, "swiglu_fusion", 0, 1, 1);
  integer_attribute(node, "swiglu_limit_after_activation", 0, 0, 0);
  check_float_attribute(node, "activation_alpha", 1, 1);
  check_float_attribute(node, "activation_beta", 0, 0);
  check_float_attribute(node, "swiglu_limit", INFINITY, INFINITY);
  integer_attribute(node, "use_sparse_mixer", 0, 0, 0);
  integer_attribute(node, "accuracy_level", 0, 4, 4);
  integer_attribute(node, "weights_prepacked", -1, -1, 0);
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) integer_attribute(node, widths[i], bits, bits, bits);
}

static void check_inputs(Node *node) {
  check_no_input(node, INPUT_UP + BIAS, "biases are not supported");
  check_no_input(node, INPUT_DOWN + BIAS, "biases are not supported");
  for (size_t i = INPUT_FC3; i < INPUT_UP_ZEROS; i++) check_no_input(node, i, "FC3 is not supported");
  check_no_input(node, INPUT_FC3_ZEROS, "FC3 is not supported");
}

static Tensor constant(Node *node, size_t index) {
  const Tensor found = constant_input(node, index);
  if (!found.given && has_input(node, index))
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s is computed; it must be a constant of the graph", found.name);
  return found;
}

/* Read a matrix of all experts; its K must be in whole blocks. */
static Stored read_matrix(Node *node, size_t at, size_t zeros_at, int bits, int block_size) {
  Stored stored = {0};
  const Tensor codes = constant(node, at + CODES), scales = constant(node, at + SCALES);
  const Tensor zeros = constant(node, zeros_at);
  CHECK_SHAPE(node, &codes, "[experts, N, K * bits / 8]", ANY_SIZE, ANY_SIZE, ANY_SIZE);
  check_floats(node, &scales);
  if (node->status != NULL) return stored;
  const int64_t experts = codes.sizes[0], n = codes.sizes[1], bytes = codes.sizes[2];
  int64_t k = 0;
  if (element_count(&codes) == 0 || __builtin_mul_overflow(bytes, 8 / bits, &k) || k % block_size != 0) {
    refuse(node, ORT_NOT_IMPLEMENTED,
           "input %s has %" PRId64 " rows of %" PRId64 " bytes; there must be rows, of whole blocks of %d elements",
           codes.name, n, bytes, block_size);
    return stored;
  }
  /* The codes are in memory, so that no product of their sizes overflows. */
  stored.experts = experts;
  stored.shape = (MatMulShape){.n = n, .k = k, .bits = bits, .block_size = block_size, .blocks = k / block_size};
  const int64_t blocks = stored.shape.blocks, zero_bytes = (blocks * bits + 7) / 8;
  CHECK_SHAPE(node, &scales, "[experts, N, K / block_size]", experts, n, blocks);
  if (zeros.given) CHECK_SHAPE(node, &zeros, "[experts, N, ceil(blocks * bits / 8)]", experts, n, zero_bytes);
  stored.first = (StoredWeights){
      .weights = codes.data, .scales = scales.data, .halves = scales.type == FLOAT16, .zero_points = zeros.data};
  stored.weight_bytes = (size_t)(n * bytes);
  stored.scale_bytes = (size_t)(n * blocks) * (scales.type == FLOAT16 ? sizeof(uint16_t) : sizeof(float));
  stored.zero_bytes = (size_t)(n * zero_bytes);
  return stored;
}

/* Return the matrix of one expert. */
static StoredWeights matrix_of(const Stored *stored, int64_t expert) {
  StoredWeights one = stored->first;
  one.weights += (size_t)expert * stored->weight_bytes;
  one.scales = (const uint8_t *)one.scales + (size_t)expert * stored->scale_bytes;
  if (one.zero_points != NULL) one.zero_points += (size_t)expert * stored->zero_bytes;
  return one;
}

/* Pack the matrix of an expert, unless the node is refused. */
static PackedWeights *pack(Node *node, const Stored *stored, int64_t expert, size_t at) {
  const StoredWeights one = matrix_of(stored, expert);
  if (node->status != NULL) return NULL;
  if (!matmul_packable(&stored->shape, &one)) {
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s has a number that is not finite, or not below 2^100",
           inputs[at + SCALES].name);
    return NULL;
  }
  PackedWeights *packed = matmul_pack(&stored->shape, &one);
  if (packed == NULL) refuse_memory(node);
  return packed;
}

/* Check that gate and up, and down, are of the same experts and sizes. */
static void check_sizes(Node *node, const Stored *up, const Stored *down, int64_t chosen) {
  if (node->status != NULL) return;
  if (down->experts != up->experts || 2 * down->shape.k != up->shape.n || down->shape.n != up->shape.k)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input fc2_experts_weights has %" PRId64 " experts of [%" PRId64 ", %" PRId64
           "]; fc1_experts_weights has %" PRId64 " of [%" PRId64 ", %" PRId64
           "], where [2 * inner, hidden] must be before [hidden, inner]",
           down->experts, down->shape.n, down->shape.k, up->experts, up->shape.n, up->shape.k);
  if (chosen > up->experts)
    refuse(node, ORT_INVALID_ARGUMENT, "attribute k is %" PRId64 "; there are %" PRId64 " experts", chosen,
           up->experts);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  Node node = created_node(api, &definition, info);
  const int64_t bits = integer_attribute(&node, "expert_weight_bits", 4, 4, 8);
  const int64_t block_size = integer_attribute(&node, "block_size", 0, 16, 256);
  const Routing routing = {
      .chosen = integer_attribute(&node, "k", 1, 1, INT64_MAX),
      .normalized = (int)integer_attribute(&node, "normalize_routing_weights", 0, 0, 1),
  };
  if (bits != 4 && bits != 8)
    refuse(&node, ORT_NOT_IMPLEMENTED, "attribute expert_weight_bits is %d; it must be 4 or 8", (int)bits);
  if ((block_size & (block_size - 1)) != 0)
    refuse(&node, ORT_NOT_IMPLEMENTED, "attribute block_size is %d; it must be a power of two", (int)block_size);
  check_attributes(&node, bits);
  check_inputs(&node);
  const Stored up = read_matrix(&node, INPUT_UP, INPUT_UP_ZEROS, (int)bits, (int)block_size);
  const Stored down = read_matrix(&node, INPUT_DOWN, INPUT_DOWN_ZEROS, (int)bits, (int)block_size);
  check_sizes(&node, &up, &down, routing.chosen);
  Kernel *kernel = node.status == NULL ? calloc(1, sizeof *kernel) : NULL;
  if (kernel == NULL) {
    refuse_memory(&node);
    return node.status;
  }
  Experts *experts = &kernel->experts;
  kernel->api = api;
  experts->routing = routing;
  experts->routing.experts = up.experts;
  experts->d = up.shape.k;
  experts->f = down.shape.k;
  experts->up = calloc((size_t)up.experts, sizeof *experts->up);
  experts->down = calloc((size_t)up.experts, sizeof *experts->down);
  if (experts->up == NULL || experts->down == NULL) refuse_memory(&node);
  for (int64_t i = 0; i < up.experts && node.status == NULL; i++) {
    experts->up[i] = pack(&node, &up, i, INPUT_UP);
    experts->down[i] = pack(&node, &down, i, INPUT_DOWN);
  }
  if (node.status != NULL) destroy(kernel);
  else *out = kernel;
  return node.status;
}

/* ---- a call --------------------------------------------------------------------------------------------------------- */

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const Experts *experts = &kernel->experts;
  Node node = running_node(kernel->api, &definition, context);
  const Tensor x = input(&node, INPUT_X), logits = input(&node, INPUT_LOGITS), weights = input(&node, INPUT_WEIGHTS);
  const int64_t rows = check_rows(&node, &x, "hidden", experts->d);
  if (x.rank != 2 && x.rank != 3)
    refuse(&node, ORT_INVALID_ARGUMENT, "input input has %d dimensions; it must have 2 or 3", (int)x.rank);
  CHECK_SHAPE(&node, &logits, "[tokens, experts]", rows, experts->routing.experts);
  if (weights.given) CHECK_SHAPE(&node, &weights, "[tokens, experts]", rows, experts->routing.experts);
  if (node.status != NULL) return node.status;
  const Tokens tokens = {
      .tokens = rows,
      .x = x.data,
      .logits = logits.data,
      .weights = weights.given ? weights.data : NULL,
      .y = output(&node, 0, x.sizes, x.rank),
  };
  if (node.status != NULL || rows == 0) return node.status;
  Pool pool = {kernel->api, context};
  if (run_experts(experts, &tokens, run_parallel, &pool) != 0) refuse_memory(&node);
  return node.status;
}

OPERATOR(qmoe, definition, create, compute, destroy)
