/* A mixture of experts: y = sum over a token's chosen experts of factor * down(silu(gate x) * up x).
 *
 * Tokens are sorted by expert, and an expert's weights are multiplied with all of its tokens at once; those of an expert that
 * no token has are not read. x and the input of down are quantized and multiplied as by matmul.h, but never as in a long
 * sequence: an expert has a part of its tokens, too few to make up for repacking the weights of all experts. A token's experts
 * are added in the order of their indices. So a token has the same bits alone and in every batch and sequence, on any number of
 * threads, and with all instruction sets.
 *
 * Source: N. Shazeer et al., Outrageously Large Neural Networks, arXiv:1701.06538; ONNX Runtime, docs/ContribOperators.md,
 * com.microsoft.QMoE.
 */
#ifndef INTAGLIO_EXPERTS_H
#define INTAGLIO_EXPERTS_H

#include "experts/routing.h"
#include "matmul/matmul.h"

typedef struct {
  Routing routing;
  int64_t d, f;         /* hidden size, and the inner size of an expert: multiples of 16 */
  PackedWeights **up;   /* [X] of [2 * F, D]: the rows 2 * i of gate, and 2 * i + 1 of up */
  PackedWeights **down; /* [X] of [D, F] */
} Experts;

typedef struct {
  int64_t tokens;
  const float *x;       /* [tokens, D] */
  const float *logits;  /* [tokens, X] */
  const float *weights; /* [tokens, X], or NULL for the softmax of the chosen logits */
  float *y;             /* [tokens, D] */
} Tokens;

/* Fill y; return 0, or -1 if there is not enough memory. */
int run_experts(const Experts *experts, const Tokens *tokens, ParallelFor parallel, void *context);

#endif
