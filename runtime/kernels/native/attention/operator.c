/* The operators GroupQueryAttention and GroupQueryAttentionInt8: rotation, the KV cache, attention.
 *
 * GroupQueryAttention is supported for float32, heads of a multiple of 16, half-split rotation, and windows whose cache has
 * the length of the whole sequence. Keys and values are appended in place if past and present are the same memory.
 *
 * GroupQueryAttentionInt8 is the same with an int8 cache, [B, K, C, E + SCALE_BYTES]. Keys have channels that are large
 * for every token, which would take the precision of the others: those of a bias (Qwen2), or of a large weight in the keys'
 * norm (EXAONE 4.0). So each channel of the keys is divided by a scale and that of the queries multiplied by it. Both
 * channels of a rotated pair have the same scale, so that it commutes with rotation. The scales are computed from one of
 * two further inputs: the keys' bias, [K * E], or packed as the query is; or the weight of the keys' norm, [E].
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/append.h"
#include "attention/cache.h"
#include "common/memory.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQUENCE_LENGTHS, TOTAL_LENGTH, COS, SIN, KEY_BIAS, KEY_NORM, INPUTS };
enum { OUTPUT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };
typedef struct {
  const OrtApi *api;
  int int8; /* 1 if the cache is int8 */
  int64_t heads, kv_heads, window;
  float scale; /* 0 for 1 / sqrt(E) */
  int rotates;
} Kernel;

static OrtStatus *create_kind(const OrtApi *api, const OrtKernelInfo *info, int int8, void **out) {
  const Kernel made = {
      .api = api,
      .int8 = int8,
      .heads = attribute(api, info, "num_heads", 0),
      .kv_heads = attribute(api, info, "kv_num_heads", 0),
      .window = attribute(api, info, "local_window_size", -1),
      .scale = attribute_float(api, info, "scale", 0.0f),
      .rotates = attribute(api, info, "do_rotary", 0) == 1,
  };
  const int plain = attribute(api, info, "rotary_interleaved", 0) == 0 && attribute(api, info, "causal", 1) == 1 &&
                    attribute(api, info, "smooth_softmax", 0) <= 0 && attribute(api, info, "qk_output", 0) == 0 &&
                    attribute(api, info, "kv_cache_bit_width", 0) == 0 &&
                    attribute(api, info, "sliding_window_cache", 0) == 0 &&
                    attribute_float(api, info, "softcap", 0.0f) == 0.0f && made.window != 0 && made.scale >= 0.0f;
  if (!plain || made.heads < 1 || made.kv_heads < 1 || made.heads % made.kv_heads != 0 ||
      made.heads / made.kv_heads > MAX_GROUP)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: GroupQueryAttention with these attributes is not supported");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  *kernel = made;
  *out = kernel;
  return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, 0, out);
}

static OrtStatus *create_int8(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, 1, out);
}

/* Return what is wrong with the lengths of a sequence, or NULL. Set `past` to its number of tokens before these. */
static const char *check_lengths(const NewTokens *call, int64_t last, int64_t total, int first_prompt, int64_t *past) {
  if (last < 0 || last >= call->rows) return "intaglio: GroupQueryAttention's seqlens_k is out of range";
  *past = first_prompt ? 0 : last + 1 - call->tokens;
  if (*past < 0) return "intaglio: GroupQueryAttention's seqlens_k is too small for the sequence";
  if (*past > call->past_rows) return "intaglio: GroupQueryAttention's seqlens_k asks for more than the past holds";
  if (last >= total) return "intaglio: GroupQueryAttention's seqlens_k is not below total_sequence_length";
  return NULL;
}

static OrtStatus *invalid(const OrtApi *api, const char *message) { return fail(api, ORT_INVALID_ARGUMENT, message); }

static OrtStatus *run(const Kernel *kernel, NewTokens *call, const Tensor *in, OrtKernelContext *context, int64_t *past,
                      float *output) {
  const OrtApi *api = kernel->api;
  const int64_t total = *(const int32_t *)in[TOTAL_LENGTH].data;
  const int first_prompt = call->tokens == total;
  if (!first_prompt && call->tokens > 1 && call->batch > 1)
    return invalid(api, "intaglio: GroupQueryAttention takes one sequence when several tokens follow a past");
  for (int64_t b = 0; b < call->batch; b++) {
    const char *wrong =
        check_lengths(call, ((const int32_t *)in[SEQUENCE_LENGTHS].data)[b], total, first_prompt, past + b);
    if (wrong != NULL) return invalid(api, wrong);
  }
  call->past = past;
  Pool pool = {api, context};
  append(call, run_parallel, &pool);
  const Attention attention = {
      .batch = call->batch,
      .tokens = call->tokens,
      .heads = kernel->heads,
      .kv_heads = kernel->kv_heads,
      .head_size = call->head_size,
      .capacity = call->rows,
      .window = kernel->window > 0 ? kernel->window : 0,
      .scale = kernel->scale != 0.0f ? kernel->scale : 1.0f / sqrtf((float)call->head_size),
      .past = past,
      .queries = call->rotated,
      .keys = call->present_key,
      .values = call->present_value,
      .int8 = kernel->int8,
      .output = output,
  };
  return attend(&attention, run_parallel, &pool) == 0 ? NULL
                                                      : fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  Tensor in[INPUTS];
  OrtStatus *status = get_inputs(api, context, in, INPUTS);
  if (status != NULL) return status;
  const int packed = in[KEY].data == NULL;
  if (in[QUERY].rank != 3 || (!packed && (in[KEY].rank != 3 || in[VALUE].rank != 3)) ||
      (in[PAST_KEY].data != NULL && (in[PAST_KEY].rank != 4 || in[PAST_VALUE].rank != 4)))
    return invalid(api, "intaglio: GroupQueryAttention's inputs have the wrong number of dimensions");
  const int64_t width = in[QUERY].sizes[2], all = packed ? kernel->heads + 2 * kernel->kv_heads : kernel->heads;
  NewTokens call = {
      .int8 = kernel->int8,
      .heads = kernel->heads,
      .kv_heads = kernel->kv_heads,
      .batch = in[QUERY].sizes[0],
      .tokens = in[QUERY].sizes[1],
      .head_size = width / all,
      .past_rows = in[PAST_KEY].rank == 4 ? in[PAST_KEY].sizes[2] : 0,
      .angles = kernel->rotates ? in[COS].sizes[1] : 0,
      .query = in[QUERY].data,
      .past_key = in[PAST_KEY].data,
      .past_value = in[PAST_VALUE].data,
      .cos = in[COS].data,
      .sin = in[SIN].data,
  };
  const int64_t size = call.head_size, row = call.row_bytes = cache_row_bytes(size, kernel->int8);
  const int64_t columns = kernel->int8 ? row : size; /* of a row, in elements of the tensor */
  if (width % all != 0 || size % 16 != 0 || size < 16 || size > MAX_HEAD_SIZE)
    return invalid(api, "intaglio: GroupQueryAttention's heads must be a multiple of 16, at most 256");
  if (!packed && (in[KEY].sizes[2] != kernel->kv_heads * size || in[VALUE].sizes[2] != kernel->kv_heads * size ||
                  in[KEY].sizes[1] != call.tokens || in[VALUE].sizes[1] != call.tokens))
    return invalid(api, "intaglio: GroupQueryAttention's keys and values do not fit its queries");
  for (int index = PAST_KEY; in[PAST_KEY].rank == 4 && index <= PAST_VALUE; index++) {
    const int64_t *sizes = in[index].sizes;
    if (sizes[0] != call.batch || sizes[1] != kernel->kv_heads || sizes[2] != call.past_rows || sizes[3] != columns)
      return invalid(api, "intaglio: GroupQueryAttention's past does not fit its queries");
  }
  if (in[SEQUENCE_LENGTHS].data == NULL || in[TOTAL_LENGTH].data == NULL)
    return invalid(api, "intaglio: GroupQueryAttention needs seqlens_k and total_sequence_length");
  const int64_t total = *(const int32_t *)in[TOTAL_LENGTH].data;
  if (total <= 0) return invalid(api, "intaglio: GroupQueryAttention's total_sequence_length must be positive");
  if (kernel->rotates && (call.cos == NULL || call.sin == NULL || in[COS].rank != 2 || in[COS].sizes[0] < total ||
                          in[SIN].sizes[0] < total || 2 * call.angles > size || in[SIN].sizes[1] != call.angles))
    return invalid(api, "intaglio: GroupQueryAttention's tables of angles are too short for the sequence");
  call.query_stride = width;
  call.key_stride = packed ? width : kernel->kv_heads * size;
  call.key = packed ? call.query + kernel->heads * size : in[KEY].data;
  call.value = packed ? call.key + kernel->kv_heads * size : in[VALUE].data;
  call.rows = call.past_rows > total ? call.past_rows : total;
  const Tensor *bias = &in[KEY_BIAS], *norm = &in[KEY_NORM];
  const int64_t before = packed ? kernel->heads * size : 0, biases = packed ? width : kernel->kv_heads * size;
  if ((bias->data != NULL && (bias->rank != 1 || bias->sizes[0] != biases)) ||
      (norm->data != NULL && (norm->rank != 1 || norm->sizes[0] != size)))
    return invalid(api, "intaglio: GroupQueryAttentionInt8's bias or norm of the keys does not fit them");

  void *outputs[OUTPUTS] = {0};
  const int64_t sizes[3] = {call.batch, call.tokens, kernel->heads * size};
  const int64_t present[4] = {call.batch, kernel->kv_heads, call.rows, columns};
  status = get_output(api, context, OUTPUT, sizes, 3, &outputs[OUTPUT]);
  for (int index = PRESENT_KEY; status == NULL && index <= PRESENT_VALUE; index++)
    status = get_output(api, context, index, present, 4, &outputs[index]);
  if (status != NULL || call.batch * call.tokens == 0) return status;

  /* Without present outputs the cache is local to this call. */
  const int64_t cache = outputs[PRESENT_KEY] == NULL ? call.batch * kernel->kv_heads * call.rows * row : 0;
  const int64_t queries = call.batch * call.tokens * kernel->heads * size * (int64_t)sizeof(float);
  const int scaled = bias->data != NULL || norm->data != NULL;
  const int64_t channels = scaled ? kernel->kv_heads * size * (int64_t)sizeof(float) : 0;
  char *memory = allocate_aligned(queries + channels + 2 * cache);
  int64_t *past = malloc(call.batch * sizeof *past);
  if (memory != NULL && past != NULL) {
    char *own = memory + queries + channels;
    call.rotated = (float *)memory;
    if (scaled) {
      float *key_scales = (float *)(memory + queries);
      const float *biased = bias->data == NULL ? NULL : (const float *)bias->data + before;
      compute_key_scales(&call, biased, norm->data, key_scales);
      call.key_scales = key_scales;
    }
    call.present_key = cache ? own : outputs[PRESENT_KEY];
    call.present_value = cache ? own + cache : outputs[PRESENT_VALUE];
    status = run(kernel, &call, in, context, past, outputs[OUTPUT]);
  } else {
    status = fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  }
  free_aligned(memory);
  free(past);
  return status;
}

static const int input_types[KEY_BIAS] = {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, INT32, INT32, FLOAT, FLOAT};
static const int int8_input_types[INPUTS] = {FLOAT, FLOAT, FLOAT, INT8, INT8, INT32, INT32, FLOAT, FLOAT, FLOAT, FLOAT};
static const int output_types[OUTPUTS] = {FLOAT, FLOAT, FLOAT};
static const int int8_output_types[OUTPUTS] = {FLOAT, INT8, INT8};
static const int input_kinds[INPUTS] = {REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, REQUIRED,
                                        REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL};
static const int output_kinds[OUTPUTS] = {REQUIRED, OPTIONAL, OPTIONAL};

OPERATOR(group_query_attention, "GroupQueryAttention", input_types, output_types, create, free)
OPERATOR(group_query_attention_int8, "GroupQueryAttentionInt8", int8_input_types, int8_output_types, create_int8, free)
