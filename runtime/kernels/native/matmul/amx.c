/* GEMM with int8 weights on AMX: tiles of 16 rows of x and 16 rows of W, 16,384 products an instruction.
 *
 * TDPBSSD adds to each element of a 16 x 16 tile of 32-bit sums the products of CHUNK elements. A panel of x and a repacked
 * tile of W have its layout. The sums are exact, and the arithmetic on them is that of repacked.c, so the results are the
 * same bits. Two panels and two tiles are multiplied at once, so that each load serves two instructions.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
 */
#include "common/processor.h"
#include "matmul/repacked.h"

#if HAVE_AMX

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,amx-tile,amx-int8")))
#define INLINE TARGET ALWAYS_INLINE
#define UNROLL _Pragma("GCC unroll 16")

#include "common/lanes512.h"
#include "common/tiles.h"

int amx_supported(void) {
  const unsigned needed = HAS_AVX512_VNNI | HAS_AMX_INT8;
  return (instruction_sets() & needed) == needed && may_use_tiles();
}

typedef struct {
  _Alignas(64) int32_t sums[SPAN / REPACK_STEP][2][2][PANEL][LANES]; /* [step][panel][tile] */
  _Alignas(64) float totals[2][2][PANEL][LANES];                     /* [panel][tile] */
} Block;

/* Add the sums of one panel and one span to the totals. */
INLINE void add_sums(Block *block, int panel, const float *x_scales, const __m512 scale[2], const int steps) {
  UNROLL for (int r = 0; r < PANEL; r++) {
    UNROLL for (int t = 0; t < 2; t++) {
      __m512 part = _mm512_setzero_ps();
      UNROLL for (int step = 0; step < steps; step++) part =
          _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(block->sums[step][panel][t][r])),
                          _mm512_set1_ps(x_scales[step * PANEL + r]), part);
      float *total = block->totals[panel][t][r];
      _mm512_store_ps(total, _mm512_fmadd_ps(part, scale[t], _mm512_load_ps(total)));
    }
  }
}

/* Multiply the rows of one or two panels of x with two tiles, as a MultiplyPair. */
INLINE void multiply_panels(const Job *job, const int64_t tiles[2], const uint8_t *const bytes[2], int64_t row,
                            int64_t rows, const int panels, int64_t from, int64_t to, Block *block) {
  uint8_t *x[2];
  const float *x_scales[2];
  for (int p = 0; p < panels; p++) {
    x[p] = panel_of(job->x, row + p * PANEL);
    x_scales[p] = panel_scales(job->x, x[p]);
  }
  const int64_t n[2] = {tiles[0] * LANES, tiles[1] * LANES};
  const __mmask16 mask[2] = {first_lanes(job->w->shape.n - n[0]), first_lanes(job->w->shape.n - n[1])};
  float *y = job->y + (row - job->first_row) * job->stride - job->first_column;
  if (from == 0) memset(block->totals, 0, panels * sizeof block->totals[0]);
  for (int64_t r = 0; r < rows && from > 0; r++)
    for (int t = 0; t < 2; t++)
      _mm512_store_ps(block->totals[r / PANEL][t][r % PANEL],
                      _mm512_maskz_loadu_ps(mask[t], y + r * job->stride + n[t]));
  for (int64_t first = from; first < to; first += SPAN) {
    const int64_t steps = smaller(SPAN, to - first) / REPACK_STEP;
    for (int64_t step = 0; step < steps; step++) {
      const int64_t k = first + step * REPACK_STEP;
      _tile_loadd(6, bytes[0] + k * LANES, LINE);
      _tile_loadd(7, bytes[1] + k * LANES, LINE);
      for (int p = 0; p < panels; p++) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(4, x[p] + k * PANEL, LINE);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_stored(0, block->sums[step][p][0], LINE);
        _tile_stored(1, block->sums[step][p][1], LINE);
      }
    }
    const __m512 scale[2] = {_mm512_load_ps(tile_scales(job->w, bytes[0]) + first / SPAN * LANES),
                             _mm512_load_ps(tile_scales(job->w, bytes[1]) + first / SPAN * LANES)};
    for (int p = 0; p < panels; p++) {
      const float *scales = x_scales[p] + first / REPACK_STEP * PANEL;
      if (steps == 2) add_sums(block, p, scales, scale, 2);
      else add_sums(block, p, scales, scale, 1);
    }
  }
  for (int t = 0; t < 2; t++) {
    const int add = to == job->x->padded && job->bias != NULL;
    const __m512 bias = add ? _mm512_maskz_loadu_ps(mask[t], job->bias + n[t]) : _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; r++)
      _mm512_mask_storeu_ps(y + r * job->stride + n[t], mask[t],
                            _mm512_add_ps(_mm512_load_ps(block->totals[r / PANEL][t][r % PANEL]), bias));
  }
}

INLINE void multiply_pair(const Job *job, const int64_t tiles[2], const uint8_t *const bytes[2], int64_t row,
                          int64_t rows, int64_t from, int64_t to) {
  Block block;
  if (rows > PANEL) multiply_panels(job, tiles, bytes, row, rows, 2, from, to, &block);
  else multiply_panels(job, tiles, bytes, row, rows, 1, from, to, &block);
}

TARGET void multiply_amx(const Job *job, int64_t from, int64_t to) {
  open_tiles();
  multiply_pairs(job, from, to, 2 * PANEL, repacked_tile_bytes(job->w), multiply_pair);
  _tile_release();
}

#else

int amx_supported(void) { return 0; }

void multiply_amx(const Job *job, int64_t from, int64_t to) { (void)job, (void)from, (void)to; }

#endif
