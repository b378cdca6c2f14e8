/* y = x · Wᵀ + bias for several W and one x, and what a decoder layer has around that: the norm before it, SwiGLU in it.
 *
 * x is quantized to int8 with one scale for every 32 elements of a row, 16 where the weights' blocks are of 16, as
 * accuracy_level 4 allows, and the products are integer ones. A row's y depends on no other row, and is the same bits
 * whatever the instructions; but in a text of COARSE_ROWS and more weights of 4 bits are rounded once more (coarse.h),
 * where there is AVX512-VNNI.
 */
#ifndef INTAGLIO_MATMUL_H
#define INTAGLIO_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "matmul/weights.h"

/* Runs body(data, 0) to body(data, count - 1), in any order and on any threads. */
typedef void (*ParallelFor)(void *context, void (*body)(void *, size_t), size_t count, void *data);

/* What is multiplied: x, or (x + skip) / rms(x + skip) * norm.
 *
 * Source: B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467. */
typedef struct {
  int64_t m, k;
  int64_t sequence;  /* how many rows are one text's, S of [B, S, K] */
  const float *x;    /* [M, K] */
  const float *skip; /* [M, K], or NULL for none */
  const float *norm; /* [K], or NULL for x itself */
  float epsilon;     /* added to the mean of the squares */
  float *sum;        /* [M, K], becomes x + skip; or NULL */
} Source;

/* What it is multiplied with. */
typedef struct Product Product;
struct Product {
  const PackedWeights *weights;
  const float *bias;   /* [N], or NULL */
  const Product *gate; /* y is multiplied by silu of this one's, which has no y itself; or NULL */
  const Product *then; /* y is multiplied with these weights, and that one's y is wanted, not this one's; or NULL */
  float *y;            /* [M, N] */
};

enum { MOST_PRODUCTS = 3 };

/* Fills the y of `count` products, at most MOST_PRODUCTS; 0, or -1 where memory did not suffice. */
int matmul(const Source *source, const Product *products, int count, ParallelFor parallel, void *context);

#endif
