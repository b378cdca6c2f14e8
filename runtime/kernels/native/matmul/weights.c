/* Packing. The vector code is in the file of each instruction set. */
#define _GNU_SOURCE
#include "matmul/weights.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "common/memory.h"
#include "common/pages.h"
#include "matmul/instructions.h"

#if defined(_WIN32)
#define strcasecmp _stricmp
#else
#include <strings.h>
#endif

enum {
  RELEASE_BYTES = 1
  << 24 /* bytes of stored weights after which their pages are released, so that not all are in memory at once */
};

/* The fastest first. */
static const Instructions *const known[] = {&avx512_vnni, &avx_vnni, &avx2};

/* Return the fastest that this processor has, or NULL. INTAGLIO_KERNELS names the only one that may be used. */
static const Instructions *best(void) {
  const char *only = getenv("INTAGLIO_KERNELS");
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if ((only == NULL || strcasecmp(only, known[i]->name) == 0) && known[i]->supported()) return known[i];
  return NULL;
}

const char *matmul_instructions(void) {
  const Instructions *found = best();
  return found == NULL ? NULL : found->name;
}

static uint8_t zero_point(const uint8_t *row, int64_t block, int bits) {
  if (bits == 8) return row[block];
  return block % 2 ? row[block / 2] >> 4 : row[block / 2] & 15;
}

static uint16_t scale_at(const StoredWeights *stored, int64_t index) {
  return stored->halves ? ((const uint16_t *)stored->scales)[index]
                        : float_to_half(((const float *)stored->scales)[index]);
}

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) {
  for (int64_t i = 0; !stored->halves && i < shape->n * shape->blocks; i++)
    if (!is_exact_half(((const float *)stored->scales)[i])) return 0;
  return 1;
}

static void pack_tile(const PackedWeights *packed, const StoredWeights *stored, int64_t tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = shape->bits;
  const int64_t bytes = shape->blocks * shape->block_size * bits / 8, stride = ceil_div(shape->blocks * bits, 8);
  uint8_t *to = packed->tiles + tile * packed->tile_bytes;
  int64_t rows[LANES];
  const uint8_t *weights[LANES];
  for (int lane = 0; lane < LANES; lane++) {
    rows[lane] = smaller(tile * LANES + lane, shape->n - 1);
    weights[lane] = stored->weights + rows[lane] * bytes;
  }
  for (int64_t block = 0; block < shape->blocks; block++) {
    for (int lane = 0; lane < LANES; lane++) {
      ((uint16_t *)(to + scales_at(packed, block)))[lane] = scale_at(stored, rows[lane] * shape->blocks + block);
      if (packed->asymmetric)
        to[zero_points_at(packed, block) + lane] = zero_point(stored->zero_points + rows[lane] * stride, block, bits);
    }
  }
  packed->with->pack(packed, weights, bytes, to);
}

static size_t packed_bytes(const PackedWeights *packed) {
  return ceil_div(packed->shape.n, LANES) * packed->tile_bytes;
}

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  PackedWeights *packed = malloc(sizeof *packed);
  if (packed == NULL) return NULL;
  packed->with = best();
  packed->shape = *shape;
  packed->asymmetric = stored->zero_points != NULL;
  packed->padded = ceil_div(shape->k, CHUNK) * CHUNK;
  packed->block_bytes = shape->block_size * LANES * shape->bits / 8;
  packed->tile_bytes = block_at(packed, shape->blocks - 1) + packed->block_bytes;
  packed->tiles = packed->with == NULL ? NULL : allocate_weights(packed_bytes(packed));
  if (packed->tiles == NULL) {
    free(packed);
    return NULL;
  }
  const int64_t sizes[] = {
      /* bytes of a row */
      shape->blocks * shape->block_size * shape->bits / 8,
      shape->blocks * (int64_t)(stored->halves ? sizeof(uint16_t) : sizeof(float)),
      packed->asymmetric ? ceil_div(shape->blocks * shape->bits, 8) : 0,
  };
  MappedRange pages[] = {
      {stored->weights, shape->n * sizes[0], 0},
      {stored->scales, shape->n * sizes[1], 0},
      {stored->zero_points, shape->n * sizes[2], 0},
  };
  const int parts = sizeof pages / sizeof *pages;
  find_mapped_files(pages, parts);
  const int64_t tiles = ceil_div(shape->n, LANES);
  int64_t done = 0; /* rows whose stored weights are released */
  for (int64_t tile = 0; tile < tiles; tile++) {
    pack_tile(packed, stored, tile);
    const int64_t rows = smaller((tile + 1) * LANES, shape->n);
    if ((rows - done) * sizes[0] < RELEASE_BYTES && tile + 1 < tiles) continue;
    for (int part = 0; part < parts; part++) release_pages(&pages[part], done * sizes[part], rows * sizes[part]);
    done = rows;
  }
  return packed;
}

void matmul_free(PackedWeights *packed) {
  if (packed != NULL) free_weights(packed->tiles, packed_bytes(packed));
  free(packed);
}

#else

const char *matmul_instructions(void) { return NULL; }

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) { return (void)shape, (void)stored, 0; }

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  return (void)shape, (void)stored, NULL;
}

void matmul_free(PackedWeights *packed) { (void)packed; }

#endif
