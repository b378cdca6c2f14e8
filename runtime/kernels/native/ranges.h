/* The loops around a product of one tile, compiled for the instruction set of the file that includes this.
 *
 * That file has defined TARGET (its attribute), INLINE, MOST_ROWS (of x that its multiply takes at a time) and
 *
 *     multiply(job, tile, row, rows, bits, step, zeros): y[row .. row + rows, 16 columns of a tile]
 *
 * whose last four arguments are constants wherever it is inlined.
 */
enum { TILES = 4 /* of W that share the rows of x in the cache */ };

INLINE void multiply_range(const Job *job, int64_t from, int64_t to, const int bits, const int step, const int zeros) {
  for (int64_t first = from; first < to; first += TILES) {
    const int64_t last = smaller(first + TILES, to);
    int64_t rows;
    for (int64_t row = 0; row < job->m; row += rows) {
      const int64_t left = job->m - row;
      rows = MOST_ROWS >= 12 && left >= 12 ? 12 : MOST_ROWS >= 8 && left >= 8 ? 8 : left >= 4 ? 4 : left;
      for (int64_t tile = first; tile < last; tile++) {
        switch (rows) {
          case 1: multiply(job, tile, row, 1, bits, step, zeros); break;
          case 2: multiply(job, tile, row, 2, bits, step, zeros); break;
          case 3: multiply(job, tile, row, 3, bits, step, zeros); break;
          case 4: multiply(job, tile, row, 4, bits, step, zeros); break;
#if MOST_ROWS >= 12
          case 8: multiply(job, tile, row, 8, bits, step, zeros); break;
          case 12: multiply(job, tile, row, 12, bits, step, zeros); break;
#endif
        }
      }
    }
  }
}

#define RANGE(BITS, STEP, ZEROS) \
  TARGET static void range_##BITS##_##STEP##_##ZEROS(const Job *job, int64_t from, int64_t to) { \
    multiply_range(job, from, to, BITS, STEP, ZEROS); \
  }
RANGE(4, 16, 0) RANGE(4, 16, 1) RANGE(4, 32, 0) RANGE(4, 32, 1)
RANGE(8, 16, 0) RANGE(8, 16, 1) RANGE(8, 32, 0) RANGE(8, 32, 1)

#define RANGES \
  {{{range_4_16_0, range_4_16_1}, {range_4_32_0, range_4_32_1}}, \
   {{range_8_16_0, range_8_16_1}, {range_8_32_0, range_8_32_1}}}
