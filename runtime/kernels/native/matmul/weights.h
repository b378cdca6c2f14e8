/* Weights of 4, 5 or 8 bits in blocks: as com.microsoft.MatMulNBits stores them, and packed in the order in which they are read.
 *
 * W is [N, blocks, block_size * bits / 8] bytes; of two elements of 4 bits, the even one is in the low half of a byte. The value
 * of an element is (w - zero_point) * scale[n, block]. Without zero points, the zero point is the middle of the range.
 *
 * Elements of 5 bits are elements of 8 whose last three bits are 0, with zero points of 8 bits. Their upper four bits are stored
 * as elements of 4 bits, and their lowest bit apart: of elements 32 s + 4 i + b of a block in bit i of byte 4 s + b.
 *
 * Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
 */
#ifndef INTAGLIO_WEIGHTS_H
#define INTAGLIO_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t n, k;         /* outputs, inputs */
  int bits, block_size; /* 4, 5 or 8; 16, 32, 64, 128 or 256, and 32 or more with 5 bits */
  int64_t blocks;       /* of a row: ceil(k / block_size) */
} MatMulShape;

typedef struct {
  const uint8_t
      *weights; /* [N, blocks, block_size * bits / 8]; of 5 bits the upper four, [N, blocks, block_size / 2] */
  const uint8_t *low_bits;    /* [N, blocks, block_size / 8] with 5 bits, or NULL */
  const void *scales;         /* [N, blocks] float32 or float16 */
  int halves;                 /* 1 if the scales are float16 */
  const uint8_t *zero_points; /* [N, ceil(blocks * bits / 8)], with 5 bits [N, blocks]; or NULL */
} StoredWeights;

typedef struct PackedWeights PackedWeights;

enum {
  FIVE_BITS = 5,
  LOW_STEP = 32,    /* elements of 5 bits whose low bits are together */
  PACKED_LAYOUT = 2 /* of packed weights in files: a change of the layout (instructions.h) changes this number */
};

/* Return how many bits the stored elements, and the stored zero points, have. */
static inline int stored_bits(int bits) { return bits == 8 ? 8 : 4; }
static inline int zero_bits(int bits) { return bits == 4 ? 4 : 8; }

/* Return the name of the instruction set that packing and multiplication use, such as "AVX2", or NULL if this processor has
 * none that they are written for. The environment variable INTAGLIO_KERNELS names the only one that may be used. */
const char *matmul_instructions(void);

/* Return the name of the layout in which that instruction set packs weights, or NULL: the name of the simplest one that packs
 * them alike. AMX packs as AVX512-VNNI does. */
const char *matmul_layout(void);

/* Return whether all scales are below 2^100, so that no product of a scale overflows; those of float16 always are. They are
 * packed as float16 where it holds all of a matrix exactly, which saves a tenth of the bytes, otherwise as float32. */
int matmul_packable(const MatMulShape *shape, const StoredWeights *stored);

/* Return packed weights, in the thread's file if it has one (weight_file.h), or NULL if there is not enough memory or no instruction set. */
PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored);

void matmul_free(PackedWeights *packed);

#endif
