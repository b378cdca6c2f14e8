/* GEMM with weights of 4 and 5 bits unpacked to bytes: the same bits as `multiply` of ymm.h, which includes this, and
 * faster for many rows of x.
 *
 * With AVX2, VPMADDUBSW and VPADDW are the least that 32 products take: 16 instructions for a step of 32 elements, a row and 8
 * columns; VPDPBUSD takes 8. All else is kept few. The zero point is subtracted by one multiplication: sums start at
 * -zero_point * (the sum of these elements of x). With AVX2 that is two sums of 16 bits, modulo 2^16: they may wrap on the way,
 * but the result does not, as 16 * 15 * 127 < 2^15. Codes of 5 bits are summed in 16 bits over half a step, since
 * 8 * 31 * 127 < 2^15, and their zero points, which are those of 8 bits, are subtracted at the end.
 */
enum { UNPACKED_ROWS = 4 /* of x for one load of W: their sums take half of the registers */ };

/* A step of an unpacked tile: of `step` elements of 16 rows of W. */
typedef struct {
  float scales[LANES];
  int16_t minus_zeros[LANES][2]; /* -zero_point, twice */
  uint8_t words[][LANES][4];     /* [step / 4] */
} Step;

INLINE int unpacked_step(const PackedWeights *w) { return w->shape.block_size == 16 ? 16 : 32; }

INLINE size_t step_bytes(int step) { return sizeof(Step) + (size_t)step * LANES; }

TARGET static size_t unpacked_tile_bytes(const PackedWeights *w) {
  return (size_t)ceil_div(w->shape.k, unpacked_step(w)) * step_bytes(unpacked_step(w));
}

INLINE void unpack_step(const PackedWeights *w, const uint8_t *tile, int64_t k, int step, Step *to) {
  const int64_t block = k / w->shape.block_size;
  const __m256i low = _mm256_set1_epi8(15);
  const int bits = w->shape.bits;
  __m128i zeros = _mm_set1_epi8(bits == 4 ? 8 : (char)128);
  if (w->asymmetric) zeros = _mm_load_si128((const __m128i *)(tile + zero_points_at(w, block)));
  for (int half = 0; half < 2; half++) {
    _mm256_storeu_ps(to->scales + half * HALF, scales_of(w, tile, block, half));
    const __m256i zero = _mm256_cvtepu8_epi32(half == 0 ? zeros : _mm_srli_si128(zeros, HALF));
    const __m256i twice = _mm256_or_si256(zero, _mm256_slli_epi32(zero, 16));
    _mm256_storeu_si256((__m256i *)to->minus_zeros[half * HALF], _mm256_sub_epi16(_mm256_setzero_si256(), twice));
    for (int i = 0; i < step / 8; i++) {
      const __m256i both = _mm256_load_si256((const __m256i *)(tile + word_at(w, k + 8 * i)) + half);
      if (bits == FIVE_BITS) {
        const __m256i low_bits = _mm256_load_si256((const __m256i *)(tile + low_bits_at(w, k)) + half);
        _mm256_storeu_si256((__m256i *)to->words[2 * i][half * HALF],
                            with_low_bits(_mm256_slli_epi16(both, 1), low_bits, 2 * i));
        _mm256_storeu_si256((__m256i *)to->words[2 * i + 1][half * HALF],
                            with_low_bits(_mm256_srli_epi16(both, 3), low_bits, 2 * i + 1));
        continue;
      }
      _mm256_storeu_si256((__m256i *)to->words[2 * i][half * HALF], _mm256_and_si256(both, low));
      _mm256_storeu_si256((__m256i *)to->words[2 * i + 1][half * HALF],
                          _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
    }
  }
}

TARGET static void unpack(const PackedWeights *w, int64_t from, int64_t to, uint8_t *memory) {
  const int step = unpacked_step(w);
  for (int64_t tile = from; tile < to; tile++)
    for (int64_t k = 0; k < w->shape.k; k += step, memory += step_bytes(step))
      unpack_step(w, w->tiles + tile * w->tile_bytes, k, step, (Step *)memory);
}

/* Return -zero_point, twice, for one half of the lanes. */
INLINE __m256i minus_zeros_of(const Step *w, const int half, const int asymmetric, const int bits) {
  if (asymmetric) return _mm256_loadu_si256((const __m256i *)w->minus_zeros[half * HALF]);
  return _mm256_set1_epi16(bits == 4 ? -8 : -128);
}

/* Compute y[row .. row + UNPACKED_ROWS, 16 columns of a tile]. */
INLINE void multiply_tile(const Job *job, int64_t tile, const uint8_t *at, int64_t row, const int step,
                          const int asymmetric, const int bits) {
  const int64_t row_stride = row_bytes(job->x->padded, step), n = tile * LANES;
  const uint8_t *x = job->x->rows + row * row_stride;
  __m256 y[2][UNPACKED_ROWS];
  UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++) y[0][r] = y[1][r] = _mm256_setzero_ps();
  for (int64_t k = 0; k < job->w->shape.k; k += step, at += step_bytes(step), x += row_bytes(step, step)) {
    const Step *w = (const Step *)at;
    __m256i sum[2][UNPACKED_ROWS], before[2][UNPACKED_ROWS];
    UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++) {
      const __m256i pairs = four_of(x + r * row_stride + offsetof(StepHeader, pairs));
      UNROLL(16) for (int half = 0; half < 2; half++) sum[half][r] =
                 bits == 4 ? start_of(minus_zeros_of(w, half, asymmetric, bits), pairs) : _mm256_setzero_si256();
    }
    UNROLL(16) for (int i = 0; i < step / 4; i++) {
      if (bits == FIVE_BITS && i == step / 8) {
        UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++) UNROLL(16) for (int half = 0; half < 2; half++) {
          before[half][r] = total(sum[half][r], 4);
          sum[half][r] = _mm256_setzero_si256();
        }
      }
      const __m256i words[2] = {_mm256_loadu_si256((const __m256i *)w->words[i][0]),
                                _mm256_loadu_si256((const __m256i *)w->words[i][HALF])};
      UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++) {
        const __m256i four = four_of(x + r * row_stride + sizeof(StepHeader) + 4 * i);
        sum[0][r] = dot(sum[0][r], words[0], four, 4);
        sum[1][r] = dot(sum[1][r], words[1], four, 4);
      }
    }
    UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++) {
      const __m256 x_scale = _mm256_castsi256_ps(four_of(x + r * row_stride + offsetof(StepHeader, scale)));
      UNROLL(16) for (int half = 0; half < 2; half++) {
        __m256i whole = total(sum[half][r], 4);
        if (bits == FIVE_BITS) {
          const __m256i pairs = four_of(x + r * row_stride + offsetof(StepHeader, pairs));
          whole = _mm256_slli_epi32(_mm256_add_epi32(whole, before[half][r]), 3); /* as elements of 8 bits */
          whole = _mm256_add_epi32(whole, _mm256_madd_epi16(minus_zeros_of(w, half, asymmetric, bits), pairs));
        }
        const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(w->scales + half * HALF), x_scale);
        y[half][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, y[half][r]);
      }
    }
  }
  UNROLL(16) for (int half = 0; half < 2; half++) {
    const int64_t column = n + half * HALF;
    const __m256i mask = first_lanes(job->w->shape.n - column);
    const __m256 bias = job->bias ? _mm256_maskload_ps(job->bias + column, mask) : _mm256_setzero_ps();
    UNROLL(16) for (int r = 0; r < UNPACKED_ROWS; r++)
        _mm256_maskstore_ps(job->y + (row + r - job->first_row) * job->stride + column - job->first_column, mask,
                            _mm256_add_ps(y[half][r], bias));
  }
}

INLINE void multiply_tiles(const Job *job, int64_t from, int64_t to, const int step, const int asymmetric,
                           const int bits) {
  const size_t each = unpacked_tile_bytes(job->w);
  /* If rows are left over, some are computed twice, with the same result. */
  for (int64_t tile = from; tile < to; tile++)
    for (int64_t row = job->first_row; row < job->last_row; row += UNPACKED_ROWS)
      multiply_tile(job, tile, job->repacked + (tile - from) * each, smaller(row, job->last_row - UNPACKED_ROWS), step,
                    asymmetric, bits);
}

#define TILES_OF(STEP, ASYMMETRIC, BITS) \
  TARGET static void tiles_##STEP##_##ASYMMETRIC##_##BITS(const Job *job, int64_t from, int64_t to) { \
    multiply_tiles(job, from, to, STEP, ASYMMETRIC, BITS); \
  }
TILES_OF(16, 0, 4)
TILES_OF(16, 1, 4)
TILES_OF(32, 0, 4)
TILES_OF(32, 1, 4)
TILES_OF(32, 0, 5)
TILES_OF(32, 1, 5)

TARGET static void multiply_unpacked(const Job *job, int64_t from, int64_t to) {
  static const MultiplyTiles functions[3][2] = {
      {tiles_16_0_4, tiles_16_1_4}, {tiles_32_0_4, tiles_32_1_4}, {tiles_32_0_5, tiles_32_1_5}};
  const int kind = job->w->shape.bits == FIVE_BITS ? 2 : unpacked_step(job->w) == 32;
  functions[kind][job->w->asymmetric](job, from, to);
}
