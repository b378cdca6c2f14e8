/* Causal attention of grouped queries over a KV cache.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.GroupQueryAttention; T. Dao, FlashAttention-2,
 * arXiv:2307.08691 (online softmax: blocks of keys, with a running maximum and sum).
 */
#ifndef INTAGLIO_ATTENTION_H
#define INTAGLIO_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "matmul/matmul.h"

/* The functions of an instruction set (query_tile.h). */
typedef struct AttentionFunctions AttentionFunctions;

enum { MAX_HEAD_SIZE = 256, MAX_GROUP = 64 /* query heads that share a key head */ };

typedef struct {
  const AttentionFunctions *with;
  int64_t batch, tokens, heads, kv_heads, head_size, capacity; /* B, S, H, K, E, C */
  int64_t window;       /* keys that a query sees, its own included; 0 for all before it */
  float scale;          /* of the scores */
  const int64_t *past;  /* [B], tokens before the first of the S tokens */
  const int64_t *first; /* [B], the position of the cache's first row; or NULL for 0 */
  const float *queries; /* [B, S, H, E], rotated */
  const char *keys;     /* [B, K, C] rows of a KV cache, those of the S tokens included */
  const char *values;   /* [B, K, C], likewise */
  int int8;             /* 1 if the rows are int8 */
  int rounded;          /* 1 if a long sequence may be computed with rounded products */
  float *output;        /* [B, S, H, E] */
} Attention;

/* Return the fastest functions that this processor has the instructions for and that may be used, or NULL. */
const AttentionFunctions *attention_functions(void);

/* Fill the output; return 0, or -1 if there is not enough memory. */
int attend(const Attention *attention, ParallelFor parallel, void *context);

#endif
