/* y = x · Wᵀ + bias for one x and several W, with the norm before it and SwiGLU after it, as in a decoder layer.
 *
 * x is quantized to int8 with one scale for every 32 elements of a row, 16 where the weights' blocks are of 16, as
 * accuracy_level 4 allows, and multiplied in integers. A row's y depends on no other row, and all instruction sets return the
 * same bits; except that with AVX512-VNNI and AMX, for sequences of REPACK_ROWS and more, weights of 4 bits are rounded to int8
 * with other scales, and x has one scale for REPACK_STEP elements (repacked.h).
 */
#ifndef INTAGLIO_MATMUL_H
#define INTAGLIO_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "matmul/weights.h"

/* Run body(data, 0) to body(data, count - 1), in any order and on any threads. */
typedef void (*ParallelFor)(void *context, void (*body)(void *, size_t), size_t count, void *data);

/* The left operand: x, or (x + skip) / rms(x + skip) * norm.
 *
 * Source: B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467. */
typedef struct {
  int64_t m, k;
  int64_t sequence;  /* rows of one sequence, S of [B, S, K] */
  const float *x;    /* [M, K] */
  const float *skip; /* [M, K], or NULL for none */
  const float *norm; /* [K], or NULL for x itself */
  float epsilon;     /* added to the mean of the squares */
  float *sum;        /* [M, K], set to x + skip; or NULL */
} Input;

/* A linear layer. */
typedef struct Linear Linear;
struct Linear {
  const PackedWeights *weights;
  const float *bias;  /* [N], or NULL */
  const Linear *gate; /* y is multiplied by silu of its output, which is not stored; or NULL */
  const Linear *then; /* y is its input, and its y is filled instead of this one; or NULL */
  float *y;           /* [M, N] */
};

enum { MAX_LINEARS = 3 };

/* Fill the y of `count` linear layers, at most MAX_LINEARS; return 0, or -1 if there is not enough memory. */
int matmul(const Input *source, const Linear *linears, int count, ParallelFor parallel, void *context);

/* From now on, sequences of `rows` and more are multiplied in this thread as those of REPACK_ROWS are: with 8 or more, a part
 * of a long sequence gives the bits that it has in the whole. REPACK_ROWS, the default, is the most. */
void matmul_repack_rows(int64_t rows);

/* Return whether a sequence of `rows` is multiplied in this thread as those of REPACK_ROWS are. */
int matmul_is_long(int64_t rows);

#endif
