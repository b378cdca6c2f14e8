/* Matrix multiplication with AVX512-VNNI.
 *
 * VPDPBUSD adds, in each of 16 lanes, four products of an unsigned byte (a weight) and a signed byte (of x) to a 32-bit
 * sum. Each lane holds another row of W, so no sum runs over lanes, and one load of scales serves a block. With
 * q = round(x / scale_x), a block contributes to a dot product
 *
 *     scale_w * scale_x * (sum(w * q) - zero_point * sum(q)),
 *
 * so each sum starts at -zero_point * sum(q).
 */
#include "common/processor.h"
#include "matmul/repacked.h"

#if HAVE_X86

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE TARGET ALWAYS_INLINE
#define AHEAD 2048 /* bytes of W that are prefetched: the processor does so by itself within a page alone */
#define MAX_ROWS 8 /* of x for one load of W: their sums fill the registers with two tiles */
#define PAIR_OF_TILES

#include "common/exponential.h"
#include "common/lanes512.h"
#include "matmul/normalize.h"

static int supported(void) { return (instruction_sets() & HAS_AVX512_VNNI) != 0; }

/* Load 64 elements of a stored row of `bytes` bytes, from byte `at` on, as bytes in order. */
INLINE __m512i load_elements(const uint8_t *row, int64_t bytes, int64_t at, int bits) {
  const int64_t count = smaller(bytes - at, CHUNK * bits / 8);
  if (count <= 0) return _mm512_setzero_si512();
  const __mmask64 mask = count == 64 ? ~0ull : (1ull << count) - 1;
  if (bits == 8) return _mm512_maskz_loadu_epi8(mask, row + at);
  /* Each byte is widened to 16 bits, and its high half moves up by four: two elements in order. */
  const __m512i wide = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8((__mmask32)mask, row + at));
  return _mm512_and_si512(_mm512_or_si512(wide, _mm512_slli_epi16(wide, 4)), _mm512_set1_epi16(0x0F0F));
}

TARGET static void pack(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = stored_bits(shape->bits);
  for (int64_t k = 0; k < shape->blocks * shape->block_size; k += CHUNK) {
    __m512i r[LANES];
    for (int lane = 0; lane < LANES; lane++) r[lane] = load_elements(rows[lane], bytes, k * bits / 8, bits);
    transpose_words(r);
    for (int i = 0; i < 16; i++) {
      const int64_t element = k + 4 * i;
      if (element >= shape->blocks * shape->block_size || (bits == 4 && i % 2)) continue;
      const __m512i words = bits == 8 ? r[i] : _mm512_or_si512(r[i], _mm512_slli_epi16(r[i + 1], 4));
      _mm512_store_si512(tile + word_at(packed, element), words);
    }
  }
}

/* Loops over registers must be unrolled, or their values are in memory. */
#define UNROLL _Pragma("GCC unroll 16")

/* Return the maximum lane of each of four vectors of non-negative integers, r[0] to r[3], repeated four times. */
INLINE __m512i largest_lanes(const __m512i r[4]) {
  const __m512i a = _mm512_max_epi32(_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
  const __m512i b = _mm512_max_epi32(_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
  __m512i most = _mm512_max_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  most = _mm512_max_epi32(most, _mm512_shuffle_i64x2(most, most, 0x4E));
  return _mm512_max_epi32(most, _mm512_shuffle_i64x2(most, most, 0xB1));
}

/* Return the 64 numbers of four vectors as bytes. */
INLINE __m512i to_bytes(const __m512i q[4]) {
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes); /* packing works within quarters of a register */
}

/* Return the sums of four steps: of 16 bytes of `a`, or of 32 bytes of `a` and `b`. */
INLINE __m128i sums_of_steps(__m512i a, __m512i b, const int step) {
  const __m512i ones = _mm512_set1_epi8(1), none = _mm512_setzero_si512();
  a = _mm512_dpbusd_epi32(none, ones, a);
  b = step == 16 ? none : _mm512_dpbusd_epi32(none, ones, b);
  __m512i sum = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, 0x4E)); /* of each quarter of a, of b, and again */
  if (step == 16)
    return _mm512_castsi512_si128(
        _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), sum));
  sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0xB1));
  return _mm_unpacklo_epi32(_mm512_castsi512_si128(sum), _mm512_extracti32x4_epi32(sum, 2));
}

INLINE __m128i quarter_of(__m512i v, const int i) {
  return i == 0   ? _mm512_extracti32x4_epi32(v, 0)
         : i == 1 ? _mm512_extracti32x4_epi32(v, 1)
         : i == 2 ? _mm512_extracti32x4_epi32(v, 2)
                  : _mm512_extracti32x4_epi32(v, 3);
}

INLINE __m256i half_of(__m512i v, const int i) {
  return i == 0 ? _mm512_castsi512_si256(v) : _mm512_extracti64x4_epi64(v, 1);
}

/* Quantize four steps at a time. */
INLINE void quantize_in_steps(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                              int64_t end, const int step) {
  const __m512i infinity = _mm512_set1_epi32(0x7F800000), size = _mm512_set1_epi32(0x7FFFFFFF);
  const int each = step / 16; /* vectors per step */
  uint8_t *blocks = to->rows + row * row_bytes(to->padded, step) + row_bytes(column, step);
  for (int64_t at = 0; at < end; at += 4 * step, blocks += row_bytes(4 * step, step)) {
    __m512 v[8];
    __m512i most[4], whole[8];
    if (count - at >= 4 * step) {
      UNROLL for (int i = 0; i < 4 * each; i++) v[i] = _mm512_loadu_ps(x + at + 16 * i);
    } else {
      UNROLL for (int i = 0; i < 4 * each; i++) v[i] =
          _mm512_maskz_loadu_ps(first_lanes(count - at - 16 * i), x + at + 16 * i);
    }
    UNROLL for (int i = 0; i < 4; i++) {
      most[i] = _mm512_and_si512(_mm512_castps_si512(v[each * i]), size);
      if (each > 1) most[i] = _mm512_max_epi32(most[i], _mm512_and_si512(_mm512_castps_si512(v[each * i + 1]), size));
    }
    /* As integers, absolute values of floats have the same order, and those not finite are the largest. */
    const __m512i all = largest_lanes(most);
    const __m128 largest = _mm_castsi128_ps(_mm512_castsi512_si128(
        _mm512_mask_mov_epi32(all, _mm512_cmpge_epi32_mask(all, infinity), _mm512_set1_epi32(0x7FC00000))));
    const __mmask8 some = _mm_cmp_ps_mask(largest, _mm_set1_ps(LEAST), _CMP_GT_OQ);
    const __m512 inverse = _mm512_castps128_ps512(_mm_maskz_div_ps(some, _mm_set1_ps(127.0f), largest));
    UNROLL for (int i = 0; i < 4; i++) {
      const __m512 factor = _mm512_permutexvar_ps(_mm512_set1_epi32(i), inverse);
      UNROLL for (int j = 0; j < each; j++) whole[each * i + j] =
          _mm512_cvtps_epi32(_mm512_mul_ps(v[each * i + j], factor));
    }
    const __m512i a = to_bytes(whole), b = each > 1 ? to_bytes(whole + 4) : a;
    const __m128i sums = sums_of_steps(a, b, step);
    const __m128i scales = _mm_castps_si128(_mm_div_ps(largest, _mm_set1_ps(127.0f)));
    const __m128i starts = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sums, 7));
    const __m128i low = _mm_unpacklo_epi32(scales, sums), high = _mm_unpackhi_epi32(scales, sums);
    const __m128i starts_4 = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sums, 3));
    const __m128i low_starts = _mm_unpacklo_epi32(starts, starts_4), high_starts = _mm_unpackhi_epi32(starts, starts_4);
    const __m128i headers[4] = {
        _mm_unpacklo_epi64(low, low_starts),
        _mm_unpackhi_epi64(low, low_starts),
        _mm_unpacklo_epi64(high, high_starts),
        _mm_unpackhi_epi64(high, high_starts),
    };
    UNROLL for (int i = 0; i < 4; i++) {
      uint8_t *block = blocks + row_bytes(i * step, step);
      if (at + i * step >= end) break;
      _mm_storeu_si128((__m128i *)block, headers[i]);
      if (step == 16) _mm_storeu_si128((__m128i *)(block + sizeof(StepHeader)), quarter_of(a, i));
      else _mm256_storeu_si256((__m256i *)(block + sizeof(StepHeader)), half_of(i < 2 ? a : b, i % 2));
    }
  }
}

TARGET static void quantize(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                            int64_t end) {
  if (to->step == 16) quantize_in_steps(to, row, column, x, count, end, 16);
  else quantize_in_steps(to, row, column, x, count, end, 32);
}

/* Return four elements of x, or a number of a header, in every lane. */
INLINE __m512i in_every_lane(const uint8_t *at) {
  int32_t word;
  memcpy(&word, at, sizeof word);
  return _mm512_set1_epi32(word);
}

/* Return elements of 5 bits, in the upper bits of bytes: the upper halves of `high`, and the bit `number` of each byte of
 * `low`. */
INLINE __m512i with_low_bits(__m512i high, __m512i low, const int number) {
  const __m512i bit = number < 3   ? _mm512_slli_epi16(low, 3 - number)
                      : number > 3 ? _mm512_srli_epi16(low, number - 3)
                                   : low;
  high = _mm512_and_si512(high, _mm512_set1_epi8((char)0xF0));
  return _mm512_ternarylogic_epi32(high, bit, _mm512_set1_epi8(8), 0xF8); /* high | (bit & 8) */
}

/* Compute y[row .. row + rows, 16 columns of each tile] for one or two tiles. The sums of all rows and tiles are computed side
 * by side, since those of one wait for each other; and a pointer moves through the tile, since computing its place takes as long
 * as half a row. */
INLINE void multiply_tiles(const Job *job, int64_t tile, const int tiles, int64_t row, const int rows, const int bits,
                           const int step, const int asymmetric) {
  const PackedWeights *w = job->w;
  const size_t next = w->tile_bytes; /* from a place in the first tile to that in the second */
  const uint8_t *at = w->tiles + tile * next, *scales = at, *zero_points = at;
  const int64_t row_stride = row_bytes(job->x->padded, step);
  const uint8_t *x = job->x->rows + row * row_stride;
  const __m512i half = _mm512_set1_epi8(15);
  const int64_t block_size = w->shape.block_size, blocks = w->shape.blocks;
  const int wide = w->wide, stored = stored_bits(bits);
  int64_t left = w->shape.k;
  __m512 total[2][MAX_ROWS];
  UNROLL for (int t = 0; t < tiles; t++) UNROLL for (int r = 0; r < rows; r++) total[t][r] = _mm512_setzero_ps();
  for (int64_t block = 0; block < blocks; block++) {
    if (asymmetric && block % 4 == 0) zero_points = at, at += LINE;
    if (wide || block % 2 == 0) scales = at, at += LINE;
    __m512 scale[2];
    __m512i zero[2];
    UNROLL for (int t = 0; t < tiles; t++) {
      scale[t] = wide ? _mm512_load_ps(scales + t * next)
                      : _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(scales + t * next)));
      if (asymmetric) {
        const __m128i zeros = _mm_load_si128((const __m128i *)(zero_points + t * next));
        zero[t] = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_cvtepu8_epi32(zeros)); /* the upper 16 bits are 0 */
      }
    }
    scales += LANES * sizeof(uint16_t);
    if (asymmetric) zero_points += LANES;
    const int64_t size = smaller(block_size, left);
    left -= size;
    for (int64_t k = 0; k < size; k += step, at += step * LANES * bits / 8, x += row_bytes(step, step)) {
      __m512i sum[2][MAX_ROWS];
      UNROLL for (int r = 0; r < rows; r++) {
        const uint8_t *header = x + r * row_stride;
        UNROLL for (int t = 0; t < tiles; t++) {
          if (asymmetric) sum[t][r] = _mm512_madd_epi16(in_every_lane(header + offsetof(StepHeader, sum)), zero[t]);
          else
            sum[t][r] =
                in_every_lane(header + (bits == 4 ? offsetof(StepHeader, start_4) : offsetof(StepHeader, start)));
        }
      }
      const uint8_t *first = at; /* word */
      __m512i low[2];
      if (bits == FIVE_BITS) {
        UNROLL for (int t = 0; t < tiles; t++) {
          _mm_prefetch((const char *)at + t * next + AHEAD, _MM_HINT_T0);
          low[t] = _mm512_load_si512(at + t * next);
        }
        first += LINE;
      }
      UNROLL for (int i = 0; i < step / 4; i += 8 / stored) {
        __m512i v[2][2]; /* [tile][first, second four elements] */
        UNROLL for (int t = 0; t < tiles; t++) {
          _mm_prefetch((const char *)first + t * next + i * LANES * stored / 2 + AHEAD, _MM_HINT_T0);
          const __m512i words = _mm512_load_si512(first + t * next + i * LANES * stored / 2);
          v[t][0] = v[t][1] = words;
          if (bits == FIVE_BITS) {
            v[t][0] = with_low_bits(_mm512_slli_epi16(words, 4), low[t], i);
            v[t][1] = with_low_bits(words, low[t], i + 1);
          }
          if (bits == 4) {
            v[t][0] = _mm512_and_si512(words, half);
            v[t][1] = _mm512_and_si512(_mm512_srli_epi16(words, 4), half);
          }
        }
        UNROLL for (int j = 0; j < 8 / stored; j++) UNROLL for (int r = 0; r < rows; r++) {
          const __m512i four = in_every_lane(x + r * row_stride + sizeof(StepHeader) + 4 * (i + j));
          UNROLL for (int t = 0; t < tiles; t++) sum[t][r] = _mm512_dpbusd_epi32(sum[t][r], v[t][j], four);
        }
      }
      UNROLL for (int r = 0; r < rows; r++) {
        const __m512 x_scale = _mm512_castsi512_ps(in_every_lane(x + r * row_stride));
        UNROLL for (int t = 0; t < tiles; t++) total[t][r] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][r]), _mm512_mul_ps(scale[t], x_scale), total[t][r]);
      }
    }
  }
  UNROLL for (int t = 0; t < tiles; t++) {
    const int64_t n = (tile + t) * LANES;
    const __mmask16 mask = first_lanes(w->shape.n - n);
    const __m512 bias = job->bias ? _mm512_maskz_loadu_ps(mask, job->bias + n) : _mm512_setzero_ps();
    UNROLL for (int r = 0; r < rows; r++)
        _mm512_mask_storeu_ps(job->y + (row + r - job->first_row) * job->stride + n - job->first_column, mask,
                              _mm512_add_ps(total[t][r], bias));
  }
}

INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int zeros) {
  multiply_tiles(job, tile, 1, row, rows, bits, step, zeros);
}

INLINE void multiply_pair(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                          const int zeros) {
  multiply_tiles(job, tile, 2, row, rows, bits, step, zeros);
}

/* g / (1 + e^-g). */
INLINE __m512 silu(__m512 g) {
  const __m512 most = _mm512_set1_ps(MAX_EXPONENT), power = _mm512_mul_ps(g, _mm512_set1_ps(-LOG2_E));
  const __m512 x = _mm512_max_ps(_mm512_set1_ps(-MAX_EXPONENT), _mm512_min_ps(most, power));
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 e = _mm512_set1_ps(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++) e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(exponential_terms[i]));
  const __m512i scaled = _mm512_add_epi32(_mm512_castps_si512(e), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23));
  return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_castsi512_ps(scaled)));
}

TARGET static void gate(const float *gates, float *y, int64_t count) {
  for (int64_t at = 0; at < count; at += 16) {
    const __mmask16 mask = first_lanes(count - at);
    const __m512 factor = silu(_mm512_maskz_loadu_ps(mask, gates + at));
    _mm512_mask_storeu_ps(y + at, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + at), factor));
  }
}

#include "matmul/loops.h"

const Instructions avx512_vnni = {"AVX512-VNNI", supported,           pack,   quantize,          normalize,      gate,
                                  RANGES,        repacked_tile_bytes, repack, multiply_repacked, quantize_panels};

/* What is not a GEMM with repacked weights is that of AVX512-VNNI. */
const Instructions amx_int8 = {"AMX",  amx_supported,       pack,          quantize,     normalize,      gate,
                               RANGES, repacked_tile_bytes, repack_signed, multiply_amx, quantize_panels};

#endif
