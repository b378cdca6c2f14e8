/* Weights of 4 or 8 bits in blocks, as com.microsoft.MatMulNBits has them, and in the order in which products read them.
 *
 * W is [N, blocks, block_size * bits / 8] bytes: each row's blocks one after the other, of 4 bits the even element in
 * the low half of a byte. An element stands for (w - zero_point) * scale[n, block]; without zero points the middle of
 * the range is the zero point.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
 */
#ifndef INTAGLIO_WEIGHTS_H
#define INTAGLIO_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t n, k;         /* outputs, inputs */
  int bits, block_size; /* 4 or 8; 16, 32, 64, 128 or 256 */
  int64_t blocks;       /* of a row: ceil(k / block_size) */
} MatMulShape;

typedef struct {
  const uint8_t *weights;     /* [N, blocks, block_size * bits / 8] */
  const void *scales;         /* [N, blocks] float, or of half precision */
  int halves;
  const uint8_t *zero_points; /* [N, ceil(blocks * bits / 8)], or NULL */
} StoredWeights;

typedef struct PackedWeights PackedWeights;

/* The instructions of this processor that packing and products use, such as "AVX2"; NULL where it has none of those that
 * they are written for. The environment's INTAGLIO_KERNELS names the only ones that may be used. */
const char *matmul_instructions(void);

/* Whether the scales are all numbers of float16, as which they are packed: a tenth of the weights' bytes less
 * to read. */
int matmul_packable(const MatMulShape *shape, const StoredWeights *stored);

/* NULL where memory did not suffice, or there are no instructions. */
PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored);

void matmul_free(PackedWeights *packed);

#endif
