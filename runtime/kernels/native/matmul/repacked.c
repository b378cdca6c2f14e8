/* GEMM with weights of 4 and 5 bits repacked to int8, where SPAN elements of a row share a scale, with AVX512-VNNI.
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

#include "common/lanes512.h"

enum { ROWS = 6 /* of x for one load of two tiles: their sums and those of a span fill the registers */ };

#define LEAST_SPAN 0x1p-100f /* a span whose numbers are all below this is 0, since its factor would be infinite */

size_t repacked_tile_bytes(const PackedWeights *w) {
  return w->padded * LANES + ceil_div(w->padded, SPAN) * LANES * sizeof(float);
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

/* Return the 64 numbers of four vectors as bytes. */
INLINE __m512i to_bytes(const __m512i q[4]) {
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes); /* packing works within quarters of a register */
}

/* Quantize one step, a chunk, of which `count` elements exist and the others are 0. */
INLINE void quantize_step(const float *x, int64_t count, uint8_t *to, float *scale_to, int32_t *start_to) {
  const __m512i infinity = _mm512_set1_epi32(0x7F800000), size = _mm512_set1_epi32(0x7FFFFFFF);
  __m512 v[4];
  __m512i whole[4], most = _mm512_setzero_si512();
  if (count >= REPACK_STEP) {
    UNROLL for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_ps(x + 16 * i);
  } else {
    UNROLL for (int i = 0; i < 4; i++) v[i] = _mm512_maskz_loadu_ps(first_lanes(count - 16 * i), x + 16 * i);
  }
  /* As integers, absolute values of floats have the same order, and those not finite are the largest. */
  UNROLL for (int i = 0; i < 4; i++) most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(v[i]), size));
  most = _mm512_max_epi32(most, _mm512_shuffle_i64x2(most, most, 0x4E));
  most = _mm512_max_epi32(most, _mm512_shuffle_i64x2(most, most, 0xB1));
  most = _mm512_max_epi32(most, _mm512_shuffle_epi32(most, 0x4E));
  most = _mm512_max_epi32(most, _mm512_shuffle_epi32(most, 0xB1));
  const __mmask16 bad = _mm512_cmpge_epi32_mask(most, infinity);
  const __m512 largest = _mm512_castsi512_ps(_mm512_mask_mov_epi32(most, bad, _mm512_set1_epi32(0x7FC00000)));
  const __m128 one = _mm512_castps512_ps128(largest);
  const __mmask8 some = _mm_cmp_ss_mask(one, _mm_set_ss(LEAST), _CMP_GT_OQ);
  const __m512 factor = _mm512_broadcastss_ps(_mm_maskz_div_ss(some, _mm_set_ss(127.0f), one));
  UNROLL for (int i = 0; i < 4; i++) whole[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], factor));
  const __m512i bytes = to_bytes(whole);
  _mm512_store_si512(to, bytes);
  _mm_store_ss(scale_to, _mm_div_ss(one, _mm_set_ss(127.0f)));
  *start_to = -128 * _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes));
}

TARGET void quantize_panels(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                            int64_t end) {
  uint8_t *panel = panel_of(to, row), *bytes = panel + column * PANEL + row % PANEL * CHUNK;
  float *scales = panel_scales(to, panel) + column / REPACK_STEP * PANEL + row % PANEL;
  int32_t *starts = panel_starts(to, panel) + column / REPACK_STEP * PANEL + row % PANEL;
  for (int64_t at = 0; at < end; at += REPACK_STEP, bytes += CHUNK * PANEL, scales += PANEL, starts += PANEL)
    quantize_step(x + at, count - at, bytes, scales, starts);
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

INLINE __m512 scales_of(const PackedWeights *w, const uint8_t *tile, int64_t block) {
  const uint8_t *scales = tile + scales_at(w, block);
  return w->wide ? _mm512_load_ps(scales) : _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)scales));
}

INLINE __m512i zero_points_of(const PackedWeights *w, const uint8_t *tile, int64_t block) {
  if (!w->asymmetric) return _mm512_set1_epi32(w->shape.bits == 4 ? 8 : 128);
  return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(tile + zero_points_at(w, block))));
}

/* Return the elements of a word's line as codes of 0 .. 15 or 0 .. 31, the first four in `first`. */
INLINE void codes_of(const PackedWeights *w, const uint8_t *tile, int64_t k, const int bits, __m512i *first,
                     __m512i *second) {
  const __m512i words = _mm512_load_si512(tile + word_at(w, k));
  if (bits == 4) {
    const __m512i low = _mm512_set1_epi8(15);
    *first = _mm512_and_si512(words, low);
    *second = _mm512_and_si512(_mm512_srli_epi16(words, 4), low);
    return;
  }
  /* high << 1 | bit: 0xF8 is the table of a | (b & c) */
  const __m512i low = _mm512_load_si512(tile + low_bits_at(w, k)), high = _mm512_set1_epi8(30),
                one = _mm512_set1_epi8(1);
  const unsigned number = (unsigned)(k % LOW_STEP / 4);
  *first = _mm512_ternarylogic_epi32(_mm512_and_si512(_mm512_slli_epi16(words, 1), high),
                                     _mm512_srli_epi16(low, number), one, 0xF8);
  *second = _mm512_ternarylogic_epi32(_mm512_and_si512(_mm512_srli_epi16(words, 3), high),
                                      _mm512_srli_epi16(low, number + 1), one, 0xF8);
}

/* Repack one span of a tile of 4 or 5 bits: its scales, and its elements plus 128, all bits of `offset` inverted. */
INLINE void repack_span(const PackedWeights *w, const uint8_t *tile, int64_t from, int64_t to, float *scales,
                        uint8_t *bytes, __m512i offset, const int bits) {
  const int64_t size = w->shape.block_size, first = from / size, last = (to - 1) / size;
  /* Scales and zero points of 5 bits are those of elements of 8 bits, which are 8 times as large as the codes. */
  const int shift = bits == 4 ? 0 : 3;
  const __m512i top = _mm512_set1_epi32(bits == 4 ? 15 : 248), low_half = _mm512_set1_epi32(0xFFFF),
                to_both = _mm512_set1_epi32(0x10001);
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
  const __m512i low = _mm512_set1_epi16(255), upper = _mm512_set1_epi16((short)0xFF00);
  for (int64_t block = first; block <= last; block++) {
    const __m512 scale = scales_of(w, tile, block);
    const __m512i zero = zero_points_of(w, tile, block);
    const __m512 step = bits == 4 ? scale : _mm512_mul_ps(scale, _mm512_set1_ps(8));
    const __m512i each = _mm512_cvtps_epi32(_mm512_mul_ps(step, factor));
    const __m512i zeros = _mm512_srai_epi32(_mm512_mullo_epi32(zero, each), shift);
    const __m512i less = _mm512_sub_epi32(_mm512_set1_epi32((128 << 8) + 128), zeros);
    const __m512i by = _mm512_mullo_epi32(_mm512_and_si512(each, low_half), to_both);
    const __m512i add = _mm512_mullo_epi32(_mm512_and_si512(less, low_half), to_both);
    const int64_t begin = larger(from, block * size), end = smaller(to, (block + 1) * size);
    for (int64_t k = begin; k < end; k += 8) {
      __m512i first_four, second_four;
      codes_of(w, tile, k, bits, &first_four, &second_four);
#define MADE(CODES) _mm512_add_epi16(_mm512_mullo_epi16(CODES, by), add)
      const __m512i a = MADE(_mm512_and_si512(first_four, low));
      const __m512i b = MADE(_mm512_srli_epi16(first_four, 8));
      const __m512i c = MADE(_mm512_and_si512(second_four, low));
      const __m512i d = MADE(_mm512_srli_epi16(second_four, 8));
#undef MADE
      uint8_t *to_words = bytes + (k - from) * LANES;
      _mm512_store_si512(
          to_words, _mm512_xor_si512(offset, _mm512_or_si512(_mm512_srli_epi16(a, 8), _mm512_and_si512(b, upper))));
      _mm512_store_si512(to_words + LINE, _mm512_xor_si512(offset, _mm512_or_si512(_mm512_srli_epi16(c, 8),
                                                                                   _mm512_and_si512(d, upper))));
    }
  }
}

/* Copy one span of a tile of 8 bits, whose elements have one scale and the zero point 128. */
INLINE void copy_span(const PackedWeights *w, const uint8_t *tile, int64_t from, int64_t to, float *scales,
                      uint8_t *bytes, __m512i offset) {
  _mm512_store_ps(scales, scales_of(w, tile, from / w->shape.block_size));
  const uint8_t *words = tile + word_at(w, from);
  for (int64_t k = from; k < to; k += 4, bytes += LINE, words += LINE)
    _mm512_store_si512(bytes, _mm512_xor_si512(offset, _mm512_load_si512(words)));
}

INLINE void repack_tiles(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory, __m512i offset) {
  for (int64_t tile = from; tile < to; tile++, memory += repacked_tile_bytes(w)) {
    const uint8_t *source = w->tiles + tile * w->tile_bytes;
    float *scales = (float *)(memory + w->padded * LANES);
    for (int64_t k = 0; k < w->shape.k; k += SPAN, scales += LANES) {
      const int64_t end = smaller(k + SPAN, w->shape.k);
      if (w->shape.bits == 8) copy_span(w, source, k, end, scales, memory + k * LANES, offset);
      else if (w->shape.bits == 4) repack_span(w, source, k, end, scales, memory + k * LANES, offset, 4);
      else repack_span(w, source, k, end, scales, memory + k * LANES, offset, FIVE_BITS);
    }
  }
}

TARGET void repack(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory) {
  repack_tiles(w, from, to, memory, _mm512_setzero_si512());
}

TARGET void repack_signed(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory) {
  repack_tiles(w, from, to, memory, _mm512_set1_epi8((char)0x80));
}

/* ---- multiplication ------------------------------------------------------------------------------------------------ */

/* A MultiplyPair of at most ROWS rows. */
INLINE void multiply_pair(const Job *job, const int64_t tiles[2], const uint8_t *const bytes[2], int64_t row,
                          int64_t rows, int64_t from, int64_t to) {
  const uint8_t *x[ROWS];
  const float *x_scales[ROWS];
  const int32_t *x_starts[ROWS];
  float *y[ROWS]; /* the last row repeated if there are fewer */
  UNROLL for (int r = 0; r < ROWS; r++) {
    const int64_t at = row + smaller(r, rows - 1);
    uint8_t *panel = panel_of(job->x, at);
    x[r] = panel + at % PANEL * CHUNK;
    x_scales[r] = panel_scales(job->x, panel) + at % PANEL;
    x_starts[r] = panel_starts(job->x, panel) + at % PANEL;
    y[r] = job->y + (at - job->first_row) * job->stride - job->first_column;
  }
  const int64_t n[2] = {tiles[0] * LANES, tiles[1] * LANES};
  const __mmask16 mask[2] = {first_lanes(job->w->shape.n - n[0]), first_lanes(job->w->shape.n - n[1])};
  __m512 total[2][ROWS]; /* most of it spills to memory, outside of the inner loop */
  UNROLL for (int t = 0; t < 2; t++) UNROLL for (int r = 0; r < ROWS; r++) total[t][r] =
      from == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask[t], y[r] + n[t]);
  for (int64_t first = from; first < to; first += SPAN) {
    const int64_t end = smaller(first + SPAN, to);
    __m512 part[2][ROWS];
    UNROLL for (int t = 0; t < 2; t++) UNROLL for (int r = 0; r < ROWS; r++) part[t][r] = _mm512_setzero_ps();
    for (int64_t k = first; k < end; k += REPACK_STEP) {
      const uint8_t *w0 = bytes[0] + k * LANES, *w1 = bytes[1] + k * LANES;
      const int64_t at = k * PANEL, step = k / REPACK_STEP * PANEL;
      __m512i sum[2][ROWS];
      UNROLL for (int r = 0; r < ROWS; r++) sum[0][r] = sum[1][r] = _mm512_set1_epi32(x_starts[r][step]);
      UNROLL for (int i = 0; i < REPACK_STEP / 4; i++) {
        const __m512i a = _mm512_load_si512(w0 + i * LINE), b = _mm512_load_si512(w1 + i * LINE);
        UNROLL for (int r = 0; r < ROWS; r++) {
          const __m512i four = _mm512_set1_epi32(((const int32_t *)(x[r] + at))[i]);
          sum[0][r] = _mm512_dpbusd_epi32(sum[0][r], a, four);
          sum[1][r] = _mm512_dpbusd_epi32(sum[1][r], b, four);
        }
      }
      UNROLL for (int r = 0; r < ROWS; r++) {
        const __m512 x_scale = _mm512_set1_ps(x_scales[r][step]);
        UNROLL for (int t = 0; t < 2; t++) part[t][r] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][r]), x_scale, part[t][r]);
      }
    }
    UNROLL for (int t = 0; t < 2; t++) {
      const __m512 scale = _mm512_load_ps(tile_scales(job->w, bytes[t]) + first / SPAN * LANES);
      UNROLL for (int r = 0; r < ROWS; r++) total[t][r] = _mm512_fmadd_ps(part[t][r], scale, total[t][r]);
    }
  }
  UNROLL for (int t = 0; t < 2; t++) {
    const int add = to == job->x->padded && job->bias != NULL;
    const __m512 bias = add ? _mm512_maskz_loadu_ps(mask[t], job->bias + n[t]) : _mm512_setzero_ps();
    UNROLL for (int r = 0; r < ROWS; r++) _mm512_mask_storeu_ps(y[r] + n[t], mask[t], _mm512_add_ps(total[t][r], bias));
  }
}

TARGET void multiply_repacked(const Job *job, int64_t from, int64_t to) {
  multiply_pairs(job, from, to, ROWS, repacked_tile_bytes(job->w), multiply_pair);
}

#endif
