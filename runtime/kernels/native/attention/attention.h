/* Causal attention of grouped queries over a KV cache.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.GroupQueryAttention; T. Dao, FlashAttention-2,
 * arXiv:2307.08691 (scores in pieces, with a running maximum and sum).
 */
#ifndef INTAGLIO_ATTENTION_H
#define INTAGLIO_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "matmul/matmul.h"

enum { MAX_HEAD_SIZE = 256, MAX_GROUP = 64 }; /* queries that share a key head, at most */

typedef struct {
  int64_t batch, tokens, heads, kv_heads, head_size, capacity; /* B, S, H, K, E, C */
  int64_t window;      /* keys that a query sees, its own among them; 0 for all before it */
  float scale;         /* of the scores */
  const int64_t *past; /* [B], positions before the first of the S tokens */
  const float *queries; /* [B, S, H, E], rotated */
  const char *keys;     /* [B, K, C] rows of a cache, those of the S tokens included */
  const char *values;   /* [B, K, C], likewise */
  int int8;             /* what kind of rows these are */
  float *output;        /* [B, S, H, E] */
} Attention;

/* Whether this processor has the instructions that `attend` is written for. */
int attention_supported(void);

/* 0, or -1 where memory did not suffice. */
int attend(const Attention *attention, ParallelFor parallel, void *context);

#endif
