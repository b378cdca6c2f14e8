/* The loops around the multiplication with one tile, compiled for the instruction set of the file that includes this.
 *
 * That file defines TARGET (its attribute), INLINE, MAX_ROWS (rows of x that its `multiply` takes at most) and
 *
 *     multiply(job, tile, row, rows, bits, step, zeros): y[row .. row + rows, 16 columns of a tile]
 *
 * whose last four arguments are constants wherever it is inlined. It may define PAIR_ROWS and `multiply_pair`, which takes
 * PAIR_ROWS rows and two tiles, so that each load of x serves both. As it reads W out of order, it is for GEMM alone.
 */
/* Multiply all rows of x with tiles first .. last, which are few enough to stay in the cache. */
INLINE void multiply_group(const Job *job, int64_t first, int64_t last, const int bits, const int step,
                           const int zeros) {
  int64_t rows;
  for (int64_t row = job->first_row; row < job->last_row; row += rows) {
    const int64_t left = job->last_row - row;
#ifdef PAIR_ROWS
    if (job->last_row - job->first_row > MAX_ROWS && left >= PAIR_ROWS) {
      rows = PAIR_ROWS;
      int64_t tile = first;
      for (; tile + 1 < last; tile += 2) multiply_pair(job, tile, row, PAIR_ROWS, bits, step, zeros);
      if (tile < last) multiply(job, tile, row, PAIR_ROWS, bits, step, zeros);
      continue;
    }
#endif
    rows = MAX_ROWS >= 12 && left >= 12 ? 12 : MAX_ROWS >= 8 && left >= 8 ? 8 : left >= 4 ? 4 : left;
    for (int64_t tile = first; tile < last; tile++) {
      switch (rows) {
        case 1: multiply(job, tile, row, 1, bits, step, zeros); break;
        case 2: multiply(job, tile, row, 2, bits, step, zeros); break;
        case 3: multiply(job, tile, row, 3, bits, step, zeros); break;
        case 4: multiply(job, tile, row, 4, bits, step, zeros); break;
#if MAX_ROWS >= 12
        case 8: multiply(job, tile, row, 8, bits, step, zeros); break;
        case 12: multiply(job, tile, row, 12, bits, step, zeros); break;
#endif
      }
    }
  }
}

INLINE void multiply_range(const Job *job, int64_t from, int64_t to, const int bits, const int step, const int zeros) {
  for (int64_t first = from; first < to; first += TILES)
    multiply_group(job, first, smaller(first + TILES, to), bits, step, zeros);
}

#define RANGE(BITS, STEP, ZEROS) \
  TARGET static void range_##BITS##_##STEP##_##ZEROS(const Job *job, int64_t from, int64_t to) { \
    multiply_range(job, from, to, BITS, STEP, ZEROS); \
  }
RANGE(4, 16, 0)
RANGE(4, 16, 1) RANGE(4, 32, 0) RANGE(4, 32, 1) RANGE(8, 16, 0) RANGE(8, 16, 1) RANGE(8, 32, 0) RANGE(8, 32, 1)

#define RANGES \
  { \
    {{range_4_16_0, range_4_16_1}, {range_4_32_0, range_4_32_1}}, { \
      {range_8_16_0, range_8_16_1}, { range_8_32_0, range_8_32_1 } \
    } \
  }
