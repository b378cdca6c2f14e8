/* GEMM with weights of 4 bits repacked to int8, where SPAN elements of a row share a scale, with AVX512-VNNI.
 *
 * In blocks of 16 or 32, a third of the time of a multiplication goes to scales and not to VPDPBUSD. If a row of W is
 * multiplied with many rows of x, it is faster to repack it first: (w - zero_point) * scale is rounded to a multiple of 1/127
 * of the largest number that the blocks of a span can represent. That changes a weight by at most 1/254 of this number,
 * where its 4 bits already changed it by up to 1/30 of its block's range.
 */
#include "matmul/repacked.h"
#include "common/processor.h"

#if HAVE_X86

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE TARGET ALWAYS_INLINE
#define UNROLL _Pragma("GCC unroll 16")

enum {
  SPAN = 128, /* elements of a row of W that share a scale */
  STEP = REPACK_STEP,
  ROWS = 6, /* of x for one load of two tiles: their sums and those of a span fill the registers */
};

#define LEAST_SPAN 0x1p-100f /* a span whose numbers are all below this is 0, since its factor would be infinite */

/* A repacked tile is [K / 4][16 lanes] words of four elements, K a multiple of CHUNK, followed by the scales, [spans][16
 * lanes] float32. */
size_t repacked_tile_bytes(const PackedWeights *w) {
  return w->padded * LANES + ceil_div(w->padded, SPAN) * LANES * sizeof(float);
}

INLINE __m512 scales_of(const PackedWeights *w, const uint8_t *tile, int64_t block) {
  const uint8_t *scales = tile + scales_at(w, block);
  return w->wide ? _mm512_load_ps(scales) : _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)scales));
}

INLINE __m512i zero_points_of(const PackedWeights *w, const uint8_t *tile, int64_t block) {
  if (!w->asymmetric) return _mm512_set1_epi32(8);
  return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(tile + zero_points_at(w, block))));
}

/* Repack one span of a tile: its scales, and its elements plus 128. */
INLINE void repack_span(const PackedWeights *w, const uint8_t *tile, int64_t from, int64_t to, float *scales,
                        uint8_t *bytes) {
  const int64_t size = w->shape.block_size, first = from / size, last = (to - 1) / size;
  const __m512i top = _mm512_set1_epi32(15), low_half = _mm512_set1_epi32(0xFFFF), to_both = _mm512_set1_epi32(0x10001);
  __m512 most = _mm512_setzero_ps();
  for (int64_t block = first; block <= last; block++) {
    const __m512 scale = scales_of(w, tile, block);
    const __m512i zero = zero_points_of(w, tile, block);
    const __m512i reach = _mm512_max_epi32(zero, _mm512_sub_epi32(top, zero));
    most = _mm512_max_ps(most, _mm512_mul_ps(_mm512_abs_ps(scale), _mm512_cvtepi32_ps(reach)));
  }
  const __mmask16 some = _mm512_cmp_ps_mask(most, _mm512_set1_ps(LEAST_SPAN), _CMP_GT_OQ);
  /* In units of 1/256, so that products fit 16 bits and their upper halves are the bytes. */
  const __m512 factor = _mm512_maskz_div_ps(some, _mm512_set1_ps(127.0f * 256.0f), most);
  _mm512_store_ps(scales, _mm512_mul_ps(most, _mm512_set1_ps(1.0f / 127.0f)));
  const __m512i low = _mm512_set1_epi16(15), upper = _mm512_set1_epi16((short)0xFF00);
  for (int64_t block = first; block <= last; block++) {
    const __m512 scale = scales_of(w, tile, block);
    const __m512i zero = zero_points_of(w, tile, block);
    const __m512i each = _mm512_cvtps_epi32(_mm512_mul_ps(scale, factor));
    const __m512i less = _mm512_sub_epi32(_mm512_set1_epi32((128 << 8) + 128), _mm512_mullo_epi32(zero, each));
    const __m512i by = _mm512_mullo_epi32(_mm512_and_si512(each, low_half), to_both);
    const __m512i add = _mm512_mullo_epi32(_mm512_and_si512(less, low_half), to_both);
    const int64_t begin = larger(from, block * size), end = smaller(to, (block + 1) * size);
    for (int64_t k = begin; k < end; k += 8) {
      const __m512i codes = _mm512_load_si512(tile + word_at(w, k));
#define MADE(CODES) _mm512_add_epi16(_mm512_mullo_epi16(CODES, by), add)
      const __m512i a = MADE(_mm512_and_si512(codes, low));
      const __m512i b = MADE(_mm512_and_si512(_mm512_srli_epi16(codes, 8), low));
      const __m512i c = MADE(_mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
      const __m512i d = MADE(_mm512_srli_epi16(codes, 12));
#undef MADE
      uint8_t *to_words = bytes + (k - from) * LANES;
      _mm512_store_si512(to_words, _mm512_or_si512(_mm512_srli_epi16(a, 8), _mm512_and_si512(b, upper)));
      _mm512_store_si512(to_words + LINE, _mm512_or_si512(_mm512_srli_epi16(c, 8), _mm512_and_si512(d, upper)));
    }
  }
}

TARGET void repack(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory) {
  for (int64_t tile = from; tile < to; tile++, memory += repacked_tile_bytes(w)) {
    float *scales = (float *)(memory + w->padded * LANES);
    for (int64_t k = 0; k < w->shape.k; k += SPAN, scales += LANES)
      repack_span(w, w->tiles + tile * w->tile_bytes, k, smaller(k + SPAN, w->shape.k), scales, memory + k * LANES);
  }
}

INLINE __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

/* Multiply ROWS rows of x with two tiles. */
INLINE void multiply_pair(const Job *job, const int64_t tiles[2], const uint8_t *const bytes[2], int64_t row) {
  const int64_t row_stride = row_bytes(job->x->padded, STEP), all = job->x->padded;
  const uint8_t *x[ROWS];
  UNROLL for (int r = 0; r < ROWS; r++) x[r] = job->x->rows + (row + r) * row_stride;
  __m512 total[2][ROWS]; /* most of it spills to memory, outside of the inner loop */
  UNROLL for (int t = 0; t < 2; t++) UNROLL for (int r = 0; r < ROWS; r++) total[t][r] = _mm512_setzero_ps();
  for (int64_t first = 0; first < all; first += SPAN) {
    const int64_t end = smaller(first + SPAN, all);
    __m512 part[2][ROWS];
    UNROLL for (int t = 0; t < 2; t++) UNROLL for (int r = 0; r < ROWS; r++) part[t][r] = _mm512_setzero_ps();
    for (int64_t k = first; k < end; k += STEP) {
      const int64_t at = row_bytes(k, STEP);
      __m512i sum[2][ROWS];
      UNROLL for (int r = 0; r < ROWS; r++) sum[0][r] = sum[1][r] =
          _mm512_set1_epi32(((const StepHeader *)(x[r] + at))->start);
      UNROLL for (int i = 0; i < STEP / 4; i++) {
        const __m512i w0 = _mm512_load_si512(bytes[0] + (k + 4 * i) * LANES);
        const __m512i w1 = _mm512_load_si512(bytes[1] + (k + 4 * i) * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
          const __m512i four = _mm512_set1_epi32(((const int32_t *)(x[r] + at + sizeof(StepHeader)))[i]);
          sum[0][r] = _mm512_dpbusd_epi32(sum[0][r], w0, four);
          sum[1][r] = _mm512_dpbusd_epi32(sum[1][r], w1, four);
        }
      }
      UNROLL for (int r = 0; r < ROWS; r++) {
        const __m512 x_scale = _mm512_set1_ps(((const StepHeader *)(x[r] + at))->scale);
        UNROLL for (int t = 0; t < 2; t++) part[t][r] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][r]), x_scale, part[t][r]);
      }
    }
    UNROLL for (int t = 0; t < 2; t++) {
      const __m512 scale = _mm512_load_ps((const float *)(bytes[t] + all * LANES) + first / SPAN * LANES);
      UNROLL for (int r = 0; r < ROWS; r++) total[t][r] = _mm512_fmadd_ps(part[t][r], scale, total[t][r]);
    }
  }
  UNROLL for (int t = 0; t < 2; t++) {
    const int64_t n = tiles[t] * LANES;
    const __mmask16 mask = first_lanes(job->w->shape.n - n);
    const __m512 bias = job->bias ? _mm512_maskz_loadu_ps(mask, job->bias + n) : _mm512_setzero_ps();
    UNROLL for (int r = 0; r < ROWS; r++)
        _mm512_mask_storeu_ps(job->y + (row + r - job->first_row) * job->stride + n - job->first_column, mask,
                              _mm512_add_ps(total[t][r], bias));
  }
}

TARGET void multiply_repacked(const Job *job, int64_t from, int64_t to) {
  const size_t each = repacked_tile_bytes(job->w);
  /* If rows or tiles are left over, some are computed twice, with the same result. */
  for (int64_t row = job->first_row; row < job->last_row; row += ROWS) {
    for (int64_t tile = from; tile < to; tile += 2) {
      const int64_t tiles[2] = {tile, smaller(tile + 1, to - 1)};
      const uint8_t *const bytes[2] = {job->repacked + (tiles[0] - from) * each,
                                       job->repacked + (tiles[1] - from) * each};
      multiply_pair(job, tiles, bytes, smaller(row, job->last_row - ROWS));
    }
  }
}

#endif
