/* Multiplication with several rows of x by SMMLA; neon.h includes this.
 *
 * SMMLA multiplies two rows of x with two rows of W, eight elements each, and adds to four sums: twice the products of SDOT.
 */
enum { PAIRS = MAX_ROWS / 2 /* of rows of x */ };

/* Return eight elements of rows of W, from the words of each lane: of the first two lanes, and of the last two. */
INLINE int8x16_t first_lanes(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

INLINE int8x16_t last_lanes(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

/* Return the first eight elements of two rows of x, and the last eight. */
INLINE int8x16_t first_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

INLINE int8x16_t last_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/* Return the sums of the first and of the second row of x, in the order of the four lanes. */
INLINE int32x4_t first_row(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

INLINE int32x4_t second_row(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

/* Add 16 elements of W and of x to the sums of `count` registers of a tile, which begin at `first`: for each register and pair of
 * rows, those of its first two lanes and those of its last two. Low bits are as in add_dots. */
INLINE void add_products(int32x4_t sum[REGISTERS][PAIRS][2], const uint8_t *w, const uint8_t *const x[MAX_ROWS],
                         int64_t at, const uint8_t *low, const int number, const int first, const int count,
                         const int pairs, const int bits) {
  int8x16_t each[PAIRS][2];
  UNROLL for (int p = 0; p < pairs; p++) {
    const int8x16_t a = vld1q_s8((const int8_t *)x[2 * p] + at), b = vld1q_s8((const int8_t *)x[2 * p + 1] + at);
    each[p][0] = first_halves(a, b);
    each[p][1] = last_halves(a, b);
  }
  UNROLL for (int half = 0; half < 2; half++) {
    UNROLL for (int i = 0; i < count; i++) {
      const uint8_t *from = w + (half * stored_bits(bits) / 4 * LINE) + (first + i) * 16;
      const uint8x16_t words = vld1q_u8(from);
      int8x16_t a = bits == 8 ? vreinterpretq_s8_u8(words) : first_word(words);
      int8x16_t b = bits == 8 ? vld1q_s8((const int8_t *)from + LINE) : second_word(words);
      if (bits == FIVE_BITS) {
        const uint8x16_t bit = vld1q_u8(low + (first + i) * 16);
        a = with_low_bits(a, bit, number + 2 * half);
        b = with_low_bits(b, bit, number + 2 * half + 1);
      }
      const int8x16_t low = first_lanes(a, b), high = last_lanes(a, b);
      UNROLL for (int p = 0; p < pairs; p++) {
        sum[i][p][0] = vmmlaq_s32(sum[i][p][0], each[p][half], low);
        sum[i][p][1] = vmmlaq_s32(sum[i][p][1], each[p][half], high);
      }
    }
  }
}

/* Compute y[row .. row + rows, the columns of `count` registers of a tile from `first` on], where `rows` is 2 * pairs or one
 * less. */
INLINE void multiply_products(const Job *job, int64_t tile, int64_t row, int64_t rows, const int first, const int count,
                              const int pairs, const int bits, const int step, const int asymmetric) {
  const PackedWeights *w = job->w;
  const int64_t row_stride = row_bytes(job->x->padded, step), block_size = w->shape.block_size;
  const uint8_t *base = w->tiles + tile * w->tile_bytes;
  const uint8_t *x[MAX_ROWS]; /* the last row repeated if their number is odd */
  UNROLL for (int r = 0; r < 2 * pairs; r++) x[r] = job->x->rows + (row + smaller(r, rows - 1)) * row_stride;
  int64_t x_at = 0;
  float32x4_t y[REGISTERS][MAX_ROWS];
  UNROLL for (int i = 0; i < count; i++) UNROLL for (int r = 0; r < 2 * pairs; r++) y[i][r] = vdupq_n_f32(0.0f);
  for (int64_t block = 0; block < w->shape.blocks; block++) {
    const uint8_t *at = base + block_at(w, block);
    float32x4_t scale[REGISTERS];
    int32x4_t zero[REGISTERS];
    UNROLL for (int i = 0; i < count; i++) {
      scale[i] = scales_of(base, w, block, first + i);
      zero[i] = asymmetric ? zero_points_of(base, w, block, first + i, bits) : vdupq_n_s32(0);
    }
    const int64_t end = smaller((block + 1) * block_size, w->shape.k);
    for (int64_t k = block * block_size; k < end; k += step, x_at += row_bytes(step, step)) {
      int32x4_t sum[REGISTERS][PAIRS][2];
      UNROLL for (int i = 0; i < count; i++) UNROLL for (int p = 0; p < pairs; p++) sum[i][p][0] = sum[i][p][1] =
          vdupq_n_s32(0);
      const uint8_t *low = at;
      if (bits == FIVE_BITS) at += LINE;
      UNROLL for (int part = 0; part < step; part += 16) {
        add_products(sum, at, x, x_at + (int64_t)sizeof(StepHeader) + part, low, part / 4, first, count, pairs, bits);
        at += 16 * LANES * stored_bits(bits) / 8;
      }
      UNROLL for (int r = 0; r < 2 * pairs; r++) {
        StepHeader known;
        memcpy(&known, x[r] + x_at, sizeof known);
        UNROLL for (int i = 0; i < count; i++) {
          const int32x4_t *both = sum[i][r / 2];
          const int32x4_t own = r % 2 == 0 ? first_row(both[0], both[1]) : second_row(both[0], both[1]);
          y[i][r] = add_step(y[i][r], own, zero[i], scale[i], known, bits, asymmetric);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < 2 * pairs; r++) UNROLL for (int i = 0; i < count; i++) if (r < rows)
      store_columns(job, row + r, tile * LANES + (first + i) * WIDTH, y[i][r]);
}

typedef void (*MultiplyRows)(const Job *job, int64_t tile, int64_t row, int64_t rows);

/* With several pairs of rows, half of the columns fill the registers. */
#define PRODUCTS(COUNT, BITS, STEP, ZEROS) \
  TARGET static void products_##COUNT##_##BITS##_##STEP##_##ZEROS(const Job *job, int64_t tile, int64_t row, \
                                                                  int64_t rows) { \
    const int together = COUNT > 1 ? REGISTERS / 2 : REGISTERS; \
    for (int first = 0; first < REGISTERS; first += together) \
      multiply_products(job, tile, row, rows, first, together, COUNT, BITS, STEP, ZEROS); \
  }
#define EACH_PAIRS(BITS, STEP, ZEROS) \
  PRODUCTS(1, BITS, STEP, ZEROS) \
  PRODUCTS(2, BITS, STEP, ZEROS) \
  PRODUCTS(3, BITS, STEP, ZEROS) \
  PRODUCTS(4, BITS, STEP, ZEROS) \
  static const MultiplyRows products_##BITS##_##STEP##_##ZEROS[PAIRS] = { \
      products_1_##BITS##_##STEP##_##ZEROS, products_2_##BITS##_##STEP##_##ZEROS, \
      products_3_##BITS##_##STEP##_##ZEROS, products_4_##BITS##_##STEP##_##ZEROS};

EACH_PAIRS(4, 16, 0)
EACH_PAIRS(4, 16, 1)
EACH_PAIRS(4, 32, 0)
EACH_PAIRS(4, 32, 1)
EACH_PAIRS(8, 16, 0)
EACH_PAIRS(8, 16, 1)
EACH_PAIRS(8, 32, 0)
EACH_PAIRS(8, 32, 1)
EACH_PAIRS(5, 32, 0)
EACH_PAIRS(5, 32, 1)

static const MultiplyRows *const products[3][2][2] = {
    {{products_4_16_0, products_4_16_1}, {products_4_32_0, products_4_32_1}},
    {{products_8_16_0, products_8_16_1}, {products_8_32_0, products_8_32_1}},
    {{NULL, NULL}, {products_5_32_0, products_5_32_1}},
};

/* Compute y[row .. row + rows, 16 columns of a tile]. */
INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int asymmetric) {
  if (rows == 1) multiply_dots(job, tile, row, 1, bits, step, asymmetric, 0, REGISTERS);
  else products[place_of(bits)][step == 32][asymmetric][(rows - 1) / 2](job, tile, row, rows);
}
