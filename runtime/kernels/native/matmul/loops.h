/* The loops around the multiplication with one tile, compiled for the instruction set of the file that includes this.
 *
 * That file defines TARGET (its attribute), INLINE, MAX_ROWS (rows of x that its `multiply` takes at most: 4, 8 or 12) and
 *
 *     multiply(job, tile, row, rows, bits, step, zeros): y[row .. row + rows, 16 columns of a tile]
 *
 * whose last four arguments are constants wherever it is inlined.
 */

/* Multiply all rows of x with tiles first .. last, which are few enough to stay in the cache. */
INLINE void multiply_group(const Job *job, int64_t first, int64_t last, const int bits, const int step,
                           const int zeros) {
  int64_t rows;
  for (int64_t row = job->first_row; row < job->last_row; row += rows) {
    /* As even as possible: 13 are 7 and 6. */
    const int64_t left = job->last_row - row;
    rows = ceil_div(left, ceil_div(left, MAX_ROWS));
    for (int64_t tile = first; tile < last; tile++) {
#define ROWS(COUNT) \
  case COUNT: multiply(job, tile, row, COUNT, bits, step, zeros); break;
      switch (rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
#if MAX_ROWS > 4
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
#endif
#if MAX_ROWS > 8
        ROWS(9)
        ROWS(10)
        ROWS(11)
        ROWS(12)
#endif
      }
#undef ROWS
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
