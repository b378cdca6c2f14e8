/* The tile registers of AMX. A file defines INLINE, whose target has amx-tile, before it includes this. */
#ifndef INTAGLIO_TILES_H
#define INTAGLIO_TILES_H

#include <immintrin.h>
#include <stdint.h>

#define TILE_FENCE __asm__ volatile("" ::: "memory") /* GCC does not know that instructions on tiles read memory */

enum {
  TILE_ROWS = 16,
  TILE_LINE = 64, /* bytes of a row */
  TILE_BYTES = TILE_ROWS * TILE_LINE,
};

/* The operand of LDTILECFG. */
typedef struct {
  uint8_t palette, start, unused[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} TileConfiguration;

/* Make all eight registers of this thread 16 rows of 64 bytes. */
INLINE void open_tiles(void) {
  TileConfiguration configuration = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) {
    configuration.row_bytes[tile] = TILE_LINE;
    configuration.rows[tile] = TILE_ROWS;
  }
  TILE_FENCE;
  _tile_loadconfig(&configuration);
}

#endif
