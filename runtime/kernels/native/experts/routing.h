/* The choice of experts for each token. */
#ifndef INTAGLIO_ROUTING_H
#define INTAGLIO_ROUTING_H

#include <stdint.h>

typedef struct {
  int64_t experts, chosen; /* X, and how many of them a token has: at most X */
  int normalized;          /* given weights are divided by their sum */
} Routing;

/* Choose a token's experts: those of the largest logits, the largest first; of equal logits the one with the higher index, as
 * ONNX Runtime's operator. Set `to` to their indices and `factors` to their factors: from `weights` [X], or if it is NULL the
 * softmax of the chosen logits. If a logit is NaN, all factors are. */
void route(const Routing *routing, const float *logits, const float *weights, int64_t *to, float *factors);

#endif
