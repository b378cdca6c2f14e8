/* The library's entry points: ONNX Runtime loads it and calls RegisterCustomOps.
 *
 * ONNX Runtime looks for a kernel in a registered library before it uses its own, so a graph needs no change to run on
 * intaglio's kernels of com.microsoft operators. An operator is replaced for all nodes of a session or for none: if a kernel
 * does not support some node, creating the session fails, and the caller creates one without the library. The session's
 * configuration entries choose the operators: "intaglio.MatMulNBits" for all with quantized weights but "intaglio.QMoE",
 * "intaglio.GroupQueryAttention", and "intaglio.GroupQueryAttentionInt8". Beside quantized weights, whose products with a long
 * sequence are rounded, attention may be rounded too.
 */
#include <errno.h>
#include <stdio.h>

#include "attention/attention.h"
#include "common/weight_file.h"
#include "matmul/matmul.h"
#include "ort/operators.h"
#include "ort/ort.h"

static OrtStatus *add(const OrtApi *api, const OrtSessionOptions *options, OrtCustomOpDomain *domain, const char *entry,
                      const OrtCustomOp *op, int supported) {
  int wanted = 0;
  OrtStatus *status = api->HasSessionConfigEntry(options, entry, &wanted);
  if (status != NULL || !wanted) return status;
  if (!supported) return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: this processor lacks the instructions of a kernel");
  return api->CustomOpDomain_Add(domain, op);
}

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* Return the name of the instruction set that matrix multiplications use, or NULL if this processor has none of them. */
EXPORTED const char *intaglio_instructions(void) { return matmul_instructions(); }

/* Return the name of the layout in which it packs weights, or NULL. */
EXPORTED const char *intaglio_layout(void) { return matmul_layout(); }

/* Map packed weights of the kernels that this thread creates from the file at `path`, or write them into a new one, until
 * `intaglio_end_weight_file` is called. Return 0 or an errno; see weight_file.h. */
EXPORTED int intaglio_begin_weight_file(const char *path, int create) {
  const char *packed = matmul_layout();
  char layout[LAYOUT_BYTES];
  if (packed == NULL) return ENOTSUP;
  snprintf(layout, sizeof layout, "%d %s", PACKED_LAYOUT, packed);
  return begin_weight_file(path, create, layout);
}

EXPORTED int intaglio_end_weight_file(int complete) { return end_weight_file(complete); }

/* See matmul.h. */
EXPORTED void intaglio_repack_rows(int64_t rows) { matmul_repack_rows(rows); }

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  OrtCustomOpDomain *domain = NULL;
  int quantized = 0;
  OrtStatus *status = api->CreateCustomOpDomain("com.microsoft", &domain);
  if (status == NULL) status = api->HasSessionConfigEntry(options, "intaglio.MatMulNBits", &quantized);
  if (status == NULL)
    status = add(api, options, domain, "intaglio.MatMulNBits", &matmul_nbits, matmul_instructions() != NULL);
  if (status == NULL) status = add(api, options, domain, "intaglio.MatMulNBits", &merged_matmul_nbits, 1);
  if (status == NULL) status = add(api, options, domain, "intaglio.MatMulNBits", &gather_block_quantized, 1);
  if (status == NULL) status = add(api, options, domain, "intaglio.QMoE", &qmoe, matmul_instructions() != NULL);
  if (status == NULL)
    status = add(api, options, domain, "intaglio.GroupQueryAttention",
                 quantized ? &group_query_attention_rounded : &group_query_attention, attention_functions() != NULL);
  if (status == NULL)
    status = add(api, options, domain, "intaglio.GroupQueryAttentionInt8",
                 quantized ? &group_query_attention_int8_rounded : &group_query_attention_int8,
                 attention_functions() != NULL);
  if (status == NULL) status = api->AddCustomOpDomain(options, domain);
  return status;
}
