/* Matrix multiplication with registers of 256 bits, half a tile each, compiled for the instruction set of the file that
 * includes this. That file defines TARGET (its attribute), INLINE, NAME and LABEL (of its Instructions), supported(), and
 *
 *     stored(w)              weights of 8 bits as they are packed, w - OFFSET
 *     dot(sum, w, x, bits)   adds the products of bytes of W, as they are packed, and signed bytes of x to a sum
 *     dot_five(sum, w, x)    adds those of two vectors each of W, of 5 bits, and of x
 *     total(sum, bits)       that sum as 8 of 32 bits
 *     start_of(minus_zeros, pairs)  the start of sums of weights of 4 bits: -zero_point, twice in 16 bits, multiplied by the sums of
 *                            the elements 0 and 1, and 2 and 3, of each four of x
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "common/exponential.h"
#include "common/lanes256.h"
#include "matmul/normalize.h"

#define MAX_ROWS 4 /* of x for one load of W: their sums take half of the registers */

/* Loops over registers must be unrolled, or their values are in memory; unrolling more needs too many registers. */
#define UNROLL(TIMES) PRAGMA(GCC unroll TIMES)
#define PRAGMA(WORDS) _Pragma(#WORDS)

enum { HALF = 8 /* lanes */ };

/* ---- packing ------------------------------------------------------------------------------------------------------ */

/* Load 32 elements of a stored row of `bytes` bytes, from byte `at` on, as bytes in order. */
INLINE __m256i load_elements(const uint8_t *row, int64_t bytes, int64_t at, int bits) {
  const int64_t whole = 32 * bits / 8, count = bytes - at;
  uint8_t copy[32] = {0};
  const uint8_t *from = row + at;
  if (count < whole) from = memcpy(copy, from, (size_t)count);
  if (bits == 8) return _mm256_loadu_si256((const __m256i *)from);
  /* Each byte is widened to 16 bits, and its high half moves up by four: two elements in order. */
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)from));
  return _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi16(0x0F0F));
}

TARGET static void pack(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = stored_bits(shape->bits);
  const int64_t end = shape->blocks * shape->block_size;
  for (int64_t k = 0; k < end; k += 32) {
    for (int lane = 0; lane < LANES; lane += HALF) {
      __m256i r[HALF];
      for (int i = 0; i < HALF; i++) r[i] = load_elements(rows[lane + i], bytes, k * bits / 8, bits);
      transpose_words(r);
      for (int i = 0; i < 8; i += 8 / bits) {
        if (k + 4 * i >= end) continue;
        const __m256i words = bits == 8 ? stored(r[i]) : _mm256_or_si256(r[i], _mm256_slli_epi16(r[i + 1], 4));
        _mm256_store_si256((__m256i *)(tile + word_at(packed, k + 4 * i) + lane * 4), words);
      }
    }
  }
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

/* Return two sums of 16 bits: of the bytes 0 and 1, and of the bytes 2 and 3, of each word of a vector. */
INLINE uint32_t sums_of_pairs(__m256i bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4E));
  return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xB1)));
}

INLINE float largest_of(__m256 v) {
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  return _mm_cvtss_f32(_mm_max_ss(most, _mm_shuffle_ps(most, most, 1)));
}

TARGET static void quantize(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                            int64_t end) {
  const int step = to->step;
  uint8_t *block = to->rows + row * row_bytes(to->padded, step) + row_bytes(column, step);
  const __m256 sign = _mm256_set1_ps(-0.0f), infinity = _mm256_set1_ps(INFINITY);
  for (int64_t at = 0; at < end; at += step, block += row_bytes(step, step)) {
    __m256 v[4], most = _mm256_setzero_ps(), finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (int i = 0; i < 4; i++) {
      const int64_t left = 8 * i < step ? count - at - 8 * i : 0;
      v[i] = left >= 8  ? _mm256_loadu_ps(x + at + 8 * i)
             : left > 0 ? _mm256_maskload_ps(x + at + 8 * i, first_lanes(left))
                        : _mm256_setzero_ps();
      const __m256 size = _mm256_andnot_ps(sign, v[i]);
      finite = _mm256_and_ps(finite, _mm256_cmp_ps(size, infinity, _CMP_LT_OQ));
      most = _mm256_max_ps(most, size);
    }
    const float largest = _mm256_movemask_ps(finite) == 0xFF ? largest_of(most) : NAN;
    const __m256 inverse = _mm256_set1_ps(largest > LEAST ? 127.0f / largest : 0.0f);
    __m256i q[4];
    for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    /* Packing works within halves of a register, so the words are put back in order. */
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, order);
    int8_t *first = (int8_t *)block + sizeof(StepHeader);
    if (step == 16) _mm_storeu_si128((__m128i *)first, _mm256_castsi256_si128(ordered));
    else _mm256_storeu_si256((__m256i *)first, ordered);
    const uint32_t pairs = sums_of_pairs(bytes);
    const int16_t first_pairs = (int16_t)pairs, second_pairs = (int16_t)(pairs >> 16);
    const int32_t sum = first_pairs + second_pairs;
    const StepHeader header = {largest / 127.0f, sum, -128 * sum, .pairs = {first_pairs, second_pairs}};
    memcpy(block, &header, sizeof header);
  }
}

/* ---- multiplication ----------------------------------------------------------------------------------------------------- */

/* Return four elements of x in every lane. */
INLINE __m256i four_of(const uint8_t *q) {
  int32_t word;
  memcpy(&word, q, 4);
  return _mm256_set1_epi32(word);
}

/* Return the scales of a block for one half of the lanes. */
INLINE __m256 scales_of(const PackedWeights *w, const uint8_t *tile, int64_t block, const int half) {
  const uint8_t *scales = tile + scales_at(w, block);
  return w->wide ? _mm256_load_ps((const float *)scales + half * HALF)
                 : _mm256_cvtph_ps(_mm_load_si128((const __m128i *)scales + half));
}

/* Return codes of 5 bits: the bits 1 to 4 of `high`, and the bit `number` of each byte of `low`. */
INLINE __m256i with_low_bits(__m256i high, __m256i low, const int number) {
  const __m256i bit = _mm256_and_si256(_mm256_srli_epi16(low, number), _mm256_set1_epi8(1));
  return _mm256_or_si256(_mm256_and_si256(high, _mm256_set1_epi8(30)), bit);
}

/* Compute y[row .. row + rows, 16 columns of a tile]. */
INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int asymmetric) {
  const PackedWeights *w = job->w;
  const int64_t row_stride = row_bytes(job->x->padded, step), n = tile * LANES;
  const uint8_t *base = w->tiles + tile * w->tile_bytes;
  const uint8_t *x = job->x->rows + row * row_stride;
  const __m256i low = _mm256_set1_epi8(15);
  const int64_t block_size = w->shape.block_size;
  const int offset = bits == 8 ? OFFSET : 0, stored = stored_bits(bits);
  __m256 y[2][MAX_ROWS];
  for (int r = 0; r < rows; r++) y[0][r] = y[1][r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < w->shape.blocks; block++) {
    const uint8_t *at = base + block_at(w, block);
    const __m256 scale[2] = {scales_of(w, base, block, 0), scales_of(w, base, block, 1)};
    __m256i zero[2];
    if (asymmetric) {
      const __m128i zeros = _mm_load_si128((const __m128i *)(base + zero_points_at(w, block)));
      zero[0] = _mm256_sub_epi32(_mm256_cvtepu8_epi32(zeros), _mm256_set1_epi32(offset));
      zero[1] = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(zeros, 8)), _mm256_set1_epi32(offset));
    }
    const int64_t end = smaller((block + 1) * block_size, w->shape.k);
    for (int64_t k = block * block_size; k < end;
         k += step, at += step * LANES * bits / 8, x += row_bytes(step, step)) {
      __m256i sum[2][MAX_ROWS];
      UNROLL(8) for (int r = 0; r < rows; r++) sum[0][r] = sum[1][r] = _mm256_setzero_si256();
      const uint8_t *first = bits == FIVE_BITS ? at + LINE : at; /* word */
      UNROLL(2) for (int i = 0; i < step / 4; i += 8 / stored) {
        const __m256i *words = (const __m256i *)(first + i * LANES * stored / 2);
        __m256i v[2][2]; /* of each half of the tile: one word, or two words of 4 bits, in each lane */
        UNROLL(2) for (int half = 0; half < 2; half++) {
          const __m256i both = _mm256_load_si256(words + half);
          if (bits == FIVE_BITS) {
            const __m256i low_bits = _mm256_load_si256((const __m256i *)at + half);
            v[half][0] = with_low_bits(_mm256_slli_epi16(both, 1), low_bits, i);
            v[half][1] = with_low_bits(_mm256_srli_epi16(both, 3), low_bits, i + 1);
            continue;
          }
          v[half][0] = bits == 8 ? both : _mm256_and_si256(both, low);
          v[half][1] = bits == 8 ? both : _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
        UNROLL(8) for (int r = 0; r < rows; r++) {
          if (bits == FIVE_BITS) {
            const uint8_t *q = x + r * row_stride + sizeof(StepHeader) + 4 * i;
            const __m256i fours[2] = {four_of(q), four_of(q + 4)};
            sum[0][r] = dot_five(sum[0][r], v[0], fours);
            sum[1][r] = dot_five(sum[1][r], v[1], fours);
            continue;
          }
          UNROLL(2) for (int part = 0; part < 8 / bits; part++) {
            const __m256i four = four_of(x + r * row_stride + sizeof(StepHeader) + 4 * (i + part));
            sum[0][r] = dot(sum[0][r], v[0][part], four, bits);
            sum[1][r] = dot(sum[1][r], v[1][part], four, bits);
          }
        }
      }
      UNROLL(8) for (int r = 0; r < rows; r++) {
        StepHeader known;
        memcpy(&known, x + r * row_stride, sizeof known);
        const __m256i from = _mm256_set1_epi32(asymmetric ? known.sum : bits == 4 ? -8 * known.sum : known.start);
        const __m256 x_scale = _mm256_set1_ps(known.scale);
        UNROLL(2) for (int half = 0; half < 2; half++) {
          __m256i whole = total(sum[half][r], bits);
          if (bits == FIVE_BITS) whole = _mm256_slli_epi32(whole, 3); /* as elements of 8 bits */
          if (asymmetric) whole = _mm256_sub_epi32(whole, _mm256_mullo_epi32(from, zero[half]));
          else if (offset == 0) whole = _mm256_add_epi32(whole, from);
          y[half][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), _mm256_mul_ps(scale[half], x_scale), y[half][r]);
        }
      }
    }
  }
  for (int half = 0; half < 2; half++) {
    const int64_t column = n + half * HALF;
    const __m256i mask = first_lanes(w->shape.n - column);
    const __m256 bias = job->bias ? _mm256_maskload_ps(job->bias + column, mask) : _mm256_setzero_ps();
    for (int r = 0; r < rows; r++)
      _mm256_maskstore_ps(job->y + (row + r - job->first_row) * job->stride + column - job->first_column, mask,
                          _mm256_add_ps(y[half][r], bias));
  }
}

/* g / (1 + e^-g). */
INLINE __m256 silu(__m256 g) {
  const __m256 most = _mm256_set1_ps(MAX_EXPONENT), power = _mm256_mul_ps(g, _mm256_set1_ps(-LOG2_E));
  const __m256 x = _mm256_max_ps(_mm256_set1_ps(-MAX_EXPONENT), _mm256_min_ps(most, power));
  const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
  __m256 e = _mm256_set1_ps(exponential_terms[0]);
  UNROLL(8) for (int i = 1; i < EXPONENTIAL_TERMS; i++) e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(exponential_terms[i]));
  const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(e), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23));
  return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), _mm256_castsi256_ps(scaled)));
}

TARGET static void gate(const float *gates, float *y, int64_t count) {
  for (int64_t at = 0; at < count; at += HALF) {
    const __m256i mask = first_lanes(count - at);
    const __m256 factor = silu(_mm256_maskload_ps(gates + at, mask));
    _mm256_maskstore_ps(y + at, mask, _mm256_mul_ps(_mm256_maskload_ps(y + at, mask), factor));
  }
}

#include "matmul/loops.h"
#include "matmul/unpacked.h"

const Instructions NAME = {LABEL,  supported,           pack,   quantize,          normalize, gate,
                           RANGES, unpacked_tile_bytes, unpack, multiply_unpacked, NULL};
