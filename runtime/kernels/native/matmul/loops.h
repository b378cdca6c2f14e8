/* The loops around the multiplication with one tile, compiled for the instruction set of the file that includes this.
 *
 * That file defines TARGET (its attribute), INLINE, MAX_ROWS (rows of x that its `multiply` takes at most, 4 or 8) and
 *
 *     multiply(job, tile, row, rows, bits, step, zeros): y[row .. row + rows, 16 columns of a tile]
 *
 * whose last four arguments are constants wherever it is inlined. It may define PAIR_OF_TILES and multiply_pair, which
 * computes two tiles, so that each load of x serves both.
 */

#define BY_ROWS(FUNCTION) \
  switch (rows) { \
    case 1: FUNCTION(job, tile, row, 1, bits, step, zeros); break; \
    case 2: FUNCTION(job, tile, row, 2, bits, step, zeros); break; \
    case 3: FUNCTION(job, tile, row, 3, bits, step, zeros); break; \
    case 4: \
      FUNCTION(job, tile, row, 4, bits, step, zeros); \
      break; \
      BY_MORE_ROWS(FUNCTION) \
  }
#if MAX_ROWS > 4
#define BY_MORE_ROWS(FUNCTION) \
  case 5: FUNCTION(job, tile, row, 5, bits, step, zeros); break; \
  case 6: FUNCTION(job, tile, row, 6, bits, step, zeros); break; \
  case 7: FUNCTION(job, tile, row, 7, bits, step, zeros); break; \
  case 8: FUNCTION(job, tile, row, 8, bits, step, zeros); break;
#else
#define BY_MORE_ROWS(FUNCTION)
#endif

/* Multiply all rows of x with tiles first .. last, which are few enough to stay in the cache. */
INLINE void multiply_group(const Job *job, int64_t first, int64_t last, const int bits, const int step,
                           const int zeros) {
  int64_t rows;
  for (int64_t row = job->first_row; row < job->last_row; row += rows) {
    /* As even as possible: 9 are 5 and 4. */
    const int64_t left = job->last_row - row;
    int64_t tile = first;
    rows = ceil_div(left, ceil_div(left, MAX_ROWS));
#ifdef PAIR_OF_TILES
    /* One row is read in order, since memory takes all of its time. */
    for (; tile + 1 < last && rows > 1; tile += 2) BY_ROWS(multiply_pair)
#endif
    for (; tile < last; tile++) BY_ROWS(multiply)
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
RANGE(4, 16, 1)
RANGE(4, 32, 0)
RANGE(4, 32, 1)
RANGE(8, 16, 0)
RANGE(8, 16, 1)
RANGE(8, 32, 0)
RANGE(8, 32, 1)
RANGE(5, 32, 0)
RANGE(5, 32, 1)

#define RANGES \
  { \
    {{range_4_16_0, range_4_16_1}, {range_4_32_0, range_4_32_1}}, \
        {{range_8_16_0, range_8_16_1}, {range_8_32_0, range_8_32_1}}, { \
      {NULL, NULL}, { range_5_32_0, range_5_32_1 } \
    } \
  }
