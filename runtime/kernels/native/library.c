/* The library that ONNX Runtime loads: kernels that take the place of its own for some operators of com.microsoft.
 *
 * A library's kernels are looked up before ONNX Runtime's, so that a graph needs no change to run on them. An operator
 * is replaced for all of a session's nodes or for none: where some node is not of a kind that a kernel knows, creating
 * the session fails, and the caller does without. The session's entries "intaglio.MatMulNBits", which stands for all
 * operators with quantized weights, "intaglio.GroupQueryAttention" and "intaglio.GroupQueryAttentionInt8", an operator of
 * our own, say which are wanted.
 */
#include "attention/attention.h"
#include "matmul/matmul.h"
#include "ort/operators.h"
#include "ort/ort.h"

static OrtStatus *add(const OrtApi *api, const OrtSessionOptions *options, OrtCustomOpDomain *domain,
                      const char *entry, const OrtCustomOp *op, int supported) {
  int wanted = 0;
  OrtStatus *status = ORT(api, HAS_SESSION_CONFIG_ENTRY, OrtStatus *, const OrtSessionOptions *, const char *, int *)(
      options, entry, &wanted);
  if (status != NULL || !wanted) return status;
  if (!supported) return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: this processor lacks the instructions of a kernel");
  return ORT(api, CUSTOM_OP_DOMAIN_ADD, OrtStatus *, OrtCustomOpDomain *, const OrtCustomOp *)(domain, op);
}

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* For those who want to know what the products are computed with; NULL where they are not. */
EXPORTED const char *intaglio_instructions(void) { return matmul_instructions(); }

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  OrtCustomOpDomain *domain = NULL;
  OrtStatus *status = ORT(api, CREATE_CUSTOM_OP_DOMAIN, OrtStatus *, const char *, OrtCustomOpDomain **)(
      "com.microsoft", &domain);
  if (status == NULL)
    status = add(api, options, domain, "intaglio.MatMulNBits", &matmul_nbits, matmul_instructions() != NULL);
  if (status == NULL) status = add(api, options, domain, "intaglio.MatMulNBits", &nbits_layer, 1);
  if (status == NULL) status = add(api, options, domain, "intaglio.MatMulNBits", &gather_block_quantized, 1);
  if (status == NULL)
    status = add(api, options, domain, "intaglio.GroupQueryAttention", &group_query_attention, attention_supported());
  if (status == NULL)
    status = add(api, options, domain, "intaglio.GroupQueryAttentionInt8", &group_query_attention_int8,
                 attention_supported());
  if (status == NULL)
    status = ORT(api, ADD_CUSTOM_OP_DOMAIN, OrtStatus *, OrtSessionOptions *, OrtCustomOpDomain *)(options, domain);
  return status;
}
