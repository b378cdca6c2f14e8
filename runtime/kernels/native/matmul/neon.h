/* Matrix multiplication with NEON, four registers of four lanes a tile, compiled for the instruction set of the file that
 * includes this. That file defines TARGET (its attribute), INLINE, NAME and LABEL (of its Instructions), supported(), and
 *
 *     DOT(sum, w, x, word)   adds to each lane of a sum the products of its four bytes of W with the word of x of this number
 *
 * and SMMLA, with MAX_ROWS, if it has that instruction.
 *
 * Weights are packed as signed bytes less the middle of their range, those of 4 bits in two's complement. Unpacked into the
 * upper halves of bytes these are 16 times as large, and so are their sums, until the conversion to float divides them. No sum
 * reaches 2^24, so all of that is exact.
 */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "common/exponential.h"
#include "matmul/normalize.h"

#ifndef MAX_ROWS
#define MAX_ROWS 4 /* of x for one load of W */
#endif

/* Loops over registers must be unrolled, or their values are in memory. */
#define UNROLL _Pragma("GCC unroll 8")

enum {
  REGISTERS = 4, /* of a tile */
  WIDTH = 4,     /* lanes of a register */
  FRACTION = 4,  /* bits by which sums of weights of 4 bits are shifted */
};

/* ---- packing ------------------------------------------------------------------------------------------------------ */

/* Return 16 bytes of a stored row of `bytes` bytes, from byte `at` on; those after its end are 0. */
INLINE uint8x16_t load_bytes(const uint8_t *row, int64_t bytes, int64_t at) {
  if (bytes - at >= 16) return vld1q_u8(row + at);
  uint8_t copy[16] = {0};
  if (bytes > at) memcpy(copy, row + at, (size_t)(bytes - at));
  return vld1q_u8(copy);
}

/* Return the four words of 16 stored bytes: each has the next eight elements of 4 bits, the first four in the low halves of its
 * bytes. */
INLINE uint32x4_t words_of_halves(uint8x16_t stored) {
  const uint8x16_t low = vandq_u8(stored, vdupq_n_u8(15)), high = vshrq_n_u8(stored, 4);
  const uint32x4_t a = vreinterpretq_u32_u8(vzip1q_u8(low, high)), b = vreinterpretq_u32_u8(vzip2q_u8(low, high));
  const uint8x16_t first = vreinterpretq_u8_u32(vuzp1q_u32(a, b)), second = vreinterpretq_u8_u32(vuzp2q_u32(a, b));
  return vreinterpretq_u32_u8(veorq_u8(vsliq_n_u8(first, second, 4), vdupq_n_u8(0x88)));
}

TARGET static void pack(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = stored_bits(shape->bits), each = 32 / bits; /* elements of a word */
  const int64_t end = shape->blocks * shape->block_size;
  for (int lane = 0; lane < LANES; lane++) {
    for (int64_t k = 0; k < end; k += 4 * each) {
      const uint8x16_t stored = load_bytes(rows[lane], bytes, k * bits / 8);
      uint32_t words[4];
      vst1q_u32(words, bits == 4 ? words_of_halves(stored) : vreinterpretq_u32_u8(veorq_u8(stored, vdupq_n_u8(128))));
      for (int i = 0; i < 4 && k + i * each < end; i++)
        memcpy(tile + word_at(packed, k + i * each) + lane * sizeof(uint32_t), &words[i], sizeof(uint32_t));
    }
  }
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

/* Return four floats, of which the first `left` exist and the others are 0. */
INLINE float32x4_t load_floats(const float *x, int64_t left) {
  if (left >= WIDTH) return vld1q_f32(x);
  float copy[WIDTH] = {0};
  for (int i = 0; i < left; i++) copy[i] = x[i];
  return vld1q_f32(copy);
}

INLINE void store_floats(float *to, float32x4_t v, int64_t left) {
  if (left >= WIDTH) {
    vst1q_f32(to, v);
    return;
  }
  float copy[WIDTH];
  vst1q_f32(copy, v);
  for (int i = 0; i < left; i++) to[i] = copy[i];
}

INLINE void quantize_in_steps(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                              int64_t end, const int step) {
  uint8_t *block = to->rows + row * row_bytes(to->padded, step) + row_bytes(column, step);
  for (int64_t at = 0; at < end; at += step, block += row_bytes(step, step)) {
    float32x4_t v[8];
    uint32x4_t most = vdupq_n_u32(0);
    UNROLL for (int i = 0; i < step / WIDTH; i++) {
      v[i] = load_floats(x + at + WIDTH * i, count - at - WIDTH * i);
      most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(v[i])));
    }
    /* As integers, absolute values of floats have the same order, and those not finite are the largest. */
    const uint32_t largest_bits = vmaxvq_u32(most);
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7F800000) largest = NAN;
    const float32x4_t inverse = vdupq_n_f32(largest > LEAST ? 127.0f / largest : 0.0f);
    int32_t sum = 0;
    UNROLL for (int i = 0; i < step / WIDTH; i += 4) {
      int16x8_t pairs[2];
      UNROLL for (int j = 0; j < 2; j++) pairs[j] =
          vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(v[i + 2 * j], inverse))),
                       vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(v[i + 2 * j + 1], inverse))));
      const int8x16_t bytes = vcombine_s8(vqmovn_s16(pairs[0]), vqmovn_s16(pairs[1]));
      vst1q_s8((int8_t *)block + sizeof(StepHeader) + WIDTH * i, bytes);
      sum += vaddlvq_s8(bytes);
    }
    const StepHeader header = {.scale = largest / 127.0f, .sum = sum, .start = -128 * sum};
    memcpy(block, &header, sizeof header);
  }
}

TARGET static void quantize(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                            int64_t end) {
  if (to->step == 16) quantize_in_steps(to, row, column, x, count, end, 16);
  else quantize_in_steps(to, row, column, x, count, end, 32);
}

/* ---- multiplication ----------------------------------------------------------------------------------------------------- */

/* What the 16 rows of a block share: a register's scales, and its zero points as the weights are packed. */
INLINE float32x4_t scales_of(const uint8_t *base, const PackedWeights *w, int64_t block, int number) {
  const uint8_t *scales = base + scales_at(w, block);
  if (w->wide) return vld1q_f32((const float *)scales + number * WIDTH);
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(scales + number * WIDTH * sizeof(uint16_t))));
}

INLINE int32x4_t zero_points_of(const uint8_t *base, const PackedWeights *w, int64_t block, int number,
                                const int bits) {
  uint32_t four;
  memcpy(&four, base + zero_points_at(w, block) + number * WIDTH, sizeof four);
  const uint16x4_t wide = vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
  const int32x4_t zeros = vreinterpretq_s32_u32(vmovl_u16(wide));
  return bits == 4 ? vshlq_n_s32(vsubq_s32(zeros, vdupq_n_s32(8)), FRACTION) : vsubq_s32(zeros, vdupq_n_s32(128));
}

/* Unpack 16 bytes of weights of 4 bits: of each lane the first and the second word, 16 times as large. */
INLINE int8x16_t first_word(uint8x16_t words) { return vreinterpretq_s8_u8(vshlq_n_u8(words, 4)); }

INLINE int8x16_t second_word(uint8x16_t words) { return vreinterpretq_s8_u8(vandq_u8(words, vdupq_n_u8(0xF0))); }

/* Return elements of 5 bits: bit `number` of each byte of `low` becomes bit 3 of the elements of 4 bits. */
INLINE int8x16_t with_low_bits(int8x16_t high, uint8x16_t low, const int number) {
  const uint8x16_t bit = vandq_u8(vshlq_u8(low, vdupq_n_s8((int8_t)(3 - number))), vdupq_n_u8(8));
  return vreinterpretq_s8_u8(vorrq_u8(vreinterpretq_u8_s8(high), bit));
}

/* Return y plus the sum of a step, less the part of its zero points, times its scales. */
INLINE float32x4_t add_step(float32x4_t y, int32x4_t sum, int32x4_t zero, float32x4_t scale, StepHeader x,
                            const int bits, const int asymmetric) {
  if (asymmetric) sum = vmlsq_n_s32(sum, zero, x.sum);
  const float32x4_t whole = bits == 4 ? vcvtq_n_f32_s32(sum, FRACTION) : vcvtq_f32_s32(sum);
  return vfmaq_f32(y, whole, vmulq_n_f32(scale, x.scale));
}

/* Add 16 elements of W and of x to the sums of `count` registers of a tile, which begin at `first`. Of 5 bits, the low bits of
 * their words are from bit `number` on in the bytes of `low`. */
INLINE void add_dots(int32x4_t sum[REGISTERS][MAX_ROWS], const uint8_t *w, const uint8_t *low, const int number,
                     const uint8_t *x, int64_t row_stride, const int first, const int count, const int rows,
                     const int bits) {
  int8x16_t each[MAX_ROWS];
  UNROLL for (int r = 0; r < rows; r++) each[r] = vld1q_s8((const int8_t *)x + r * row_stride);
  UNROLL for (int i = 0; i < count; i++) {
    const uint8_t *at = w + (first + i) * 16;
    if (bits != 8) {
      const uint8x16_t a = vld1q_u8(at), b = vld1q_u8(at + LINE);
      int8x16_t v[4] = {first_word(a), second_word(a), first_word(b), second_word(b)};
      if (bits == FIVE_BITS) {
        const uint8x16_t bit = vld1q_u8(low + (first + i) * 16);
        UNROLL for (int j = 0; j < 4; j++) v[j] = with_low_bits(v[j], bit, number + j);
      }
      UNROLL for (int r = 0; r < rows; r++) {
        sum[i][r] = DOT(sum[i][r], v[0], each[r], 0);
        sum[i][r] = DOT(sum[i][r], v[1], each[r], 1);
        sum[i][r] = DOT(sum[i][r], v[2], each[r], 2);
        sum[i][r] = DOT(sum[i][r], v[3], each[r], 3);
      }
    } else {
      const int8_t *words = (const int8_t *)at;
      UNROLL for (int r = 0; r < rows; r++) {
        sum[i][r] = DOT(sum[i][r], vld1q_s8(words), each[r], 0);
        sum[i][r] = DOT(sum[i][r], vld1q_s8(words + LINE), each[r], 1);
        sum[i][r] = DOT(sum[i][r], vld1q_s8(words + 2 * LINE), each[r], 2);
        sum[i][r] = DOT(sum[i][r], vld1q_s8(words + 3 * LINE), each[r], 3);
      }
    }
  }
}

/* Store a register's columns of y[row]. */
INLINE void store_columns(const Job *job, int64_t row, int64_t column, float32x4_t y) {
  const int64_t left = job->w->shape.n - column;
  if (left <= 0) return;
  if (job->bias != NULL) y = vaddq_f32(y, load_floats(job->bias + column, left));
  store_floats(job->y + (row - job->first_row) * job->stride + column - job->first_column, y, left);
}

/* Compute y[row .. row + rows, the columns of `count` registers of a tile from `first` on]. */
INLINE void multiply_dots(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                          const int asymmetric, const int first, const int count) {
  const PackedWeights *w = job->w;
  const int64_t row_stride = row_bytes(job->x->padded, step), block_size = w->shape.block_size;
  const uint8_t *base = w->tiles + tile * w->tile_bytes;
  const uint8_t *x = job->x->rows + row * row_stride;
  float32x4_t y[REGISTERS][MAX_ROWS];
  UNROLL for (int i = 0; i < count; i++) UNROLL for (int r = 0; r < rows; r++) y[i][r] = vdupq_n_f32(0.0f);
  for (int64_t block = 0; block < w->shape.blocks; block++) {
    const uint8_t *at = base + block_at(w, block);
    float32x4_t scale[REGISTERS];
    int32x4_t zero[REGISTERS];
    UNROLL for (int i = 0; i < count; i++) {
      scale[i] = scales_of(base, w, block, first + i);
      zero[i] = asymmetric ? zero_points_of(base, w, block, first + i, bits) : vdupq_n_s32(0);
    }
    const int64_t end = smaller((block + 1) * block_size, w->shape.k);
    for (int64_t k = block * block_size; k < end; k += step, x += row_bytes(step, step)) {
      int32x4_t sum[REGISTERS][MAX_ROWS];
      UNROLL for (int i = 0; i < count; i++) UNROLL for (int r = 0; r < rows; r++) sum[i][r] = vdupq_n_s32(0);
      const uint8_t *low = at;
      if (bits == FIVE_BITS) at += LINE;
      UNROLL for (int part = 0; part < step; part += 16) {
        add_dots(sum, at, low, part / 4, x + sizeof(StepHeader) + part, row_stride, first, count, rows, bits);
        at += 16 * LANES * stored_bits(bits) / 8;
      }
      UNROLL for (int r = 0; r < rows; r++) {
        StepHeader known;
        memcpy(&known, x + r * row_stride, sizeof known);
        UNROLL for (int i = 0; i < count; i++) y[i][r] =
            add_step(y[i][r], sum[i][r], zero[i], scale[i], known, bits, asymmetric);
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < count; i++)
      store_columns(job, row + r, tile * LANES + (first + i) * WIDTH, y[i][r]);
}

#ifdef SMMLA
#include "matmul/neon_smmla.h"
#else
/* Compute y[row .. row + rows, 16 columns of a tile]: with several rows, half of the columns fill the registers. */
INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int asymmetric) {
  const int together = rows > 2 ? REGISTERS / 2 : REGISTERS;
  for (int first = 0; first < REGISTERS; first += together)
    multiply_dots(job, tile, row, rows, bits, step, asymmetric, first, together);
}
#endif

/* g / (1 + e^-g). */
INLINE float32x4_t silu(float32x4_t g) {
  const float32x4_t most = vdupq_n_f32(MAX_EXPONENT), power = vmulq_f32(g, vdupq_n_f32(-LOG2_E));
  const float32x4_t x = vmaxq_f32(vdupq_n_f32(-MAX_EXPONENT), vminq_f32(most, power));
  const float32x4_t n = vrndnq_f32(x), r = vsubq_f32(x, n);
  float32x4_t e = vdupq_n_f32(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++) e = vfmaq_f32(vdupq_n_f32(exponential_terms[i]), e, r);
  const int32x4_t scaled = vaddq_s32(vreinterpretq_s32_f32(e), vshlq_n_s32(vcvtnq_s32_f32(n), 23));
  return vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), vreinterpretq_f32_s32(scaled)));
}

TARGET static void gate(const float *gates, float *y, int64_t count) {
  for (int64_t at = 0; at < count; at += WIDTH) {
    const int64_t left = count - at;
    store_floats(y + at, vmulq_f32(load_floats(y + at, left), silu(load_floats(gates + at, left))), left);
  }
}

#include "matmul/loops.h"

const Instructions NAME = {LABEL, supported, pack, quantize, normalize, gate, RANGES, NULL, NULL, NULL, NULL};
