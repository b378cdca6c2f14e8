/* Packing. The vector code is in the file of each instruction set. */
#define _GNU_SOURCE
#include "matmul/weights.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "common/memory.h"
#include "common/pages.h"
#include "matmul/instructions.h"

enum {
  RELEASE_BYTES = 1
      << 24, /* of stored weights after which their pages are released, so that not all are in memory at once */
  PARTS = 4, /* of stored weights: weights, scales, zero points, low bits */
};

#define MOST_SCALE 0x1p100f

/* The fastest first. */
static const Instructions *const known[] = {
#if HAVE_X86
    &amx_int8,
    &avx512_vnni,
    &avx_vnni,
    &avx2,
#else
    &neon_i8mm,
    &neon_dotprod,
    &neon,
#endif
};

/* Return the fastest that this processor has and that may be used, or NULL. */
static const Instructions *best(void) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (instruction_set_allowed(known[i]->name) && known[i]->supported()) return known[i];
  return NULL;
}

const char *matmul_instructions(void) {
  const Instructions *found = best();
  return found == NULL ? NULL : found->name;
}

const char *matmul_layout(void) {
  const Instructions *found = best();
  const char *name = NULL;
  for (size_t i = 0; found != NULL && i < sizeof known / sizeof *known; i++)
    if (known[i]->pack == found->pack) name = known[i]->name;
  return name;
}

static uint8_t zero_point(const uint8_t *row, int64_t block, int bits) {
  if (zero_bits(bits) == 8) return row[block];
  return block % 2 ? row[block / 2] >> 4 : row[block / 2] & 15;
}

/* Store a scale for a lane of a block. */
static void pack_scale(const PackedWeights *packed, const StoredWeights *stored, int64_t index, uint8_t *to, int lane) {
  const float *floats = stored->scales;
  const uint16_t *halves = stored->scales;
  if (packed->wide) ((float *)to)[lane] = floats[index];
  else ((uint16_t *)to)[lane] = stored->halves ? halves[index] : float_to_half(floats[index]);
}

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) {
  for (int64_t i = 0; !stored->halves && i < shape->n * shape->blocks; i++)
    if (!(fabsf(((const float *)stored->scales)[i]) < MOST_SCALE)) return 0;
  return 1;
}

/* Return whether float16 does not hold all scales exactly. */
static int needs_wide_scales(const MatMulShape *shape, const StoredWeights *stored) {
  for (int64_t i = 0; !stored->halves && i < shape->n * shape->blocks; i++)
    if (!is_exact_half(((const float *)stored->scales)[i])) return 1;
  return 0;
}

/* Return how many bytes a row of stored weights has, and one of zero points. */
static int64_t stored_row_bytes(const MatMulShape *shape) {
  return shape->blocks * shape->block_size * stored_bits(shape->bits) / 8;
}

static int64_t zero_row_bytes(const MatMulShape *shape) { return ceil_div(shape->blocks * zero_bits(shape->bits), 8); }

static int64_t low_row_bytes(const MatMulShape *shape) { return shape->blocks * shape->block_size / 8; }

/* Copy the low bits of 16 rows. */
static void pack_low_bits(const PackedWeights *packed, const uint8_t *low_bits, const int64_t rows[LANES],
                          uint8_t *tile) {
  const int64_t bytes = low_row_bytes(&packed->shape);
  for (int64_t at = 0; at < bytes; at += LOW_STEP / 8)
    for (int lane = 0; lane < LANES; lane++)
      memcpy(tile + low_bits_at(packed, 8 * at) + lane * (LOW_STEP / 8), low_bits + rows[lane] * bytes + at,
             LOW_STEP / 8);
}

static void pack_tile(const PackedWeights *packed, const StoredWeights *stored, int64_t tile) {
  const MatMulShape *shape = &packed->shape;
  const int64_t bytes = stored_row_bytes(shape), stride = zero_row_bytes(shape);
  uint8_t *to = packed->tiles + tile * packed->tile_bytes;
  int64_t rows[LANES];
  const uint8_t *weights[LANES];
  for (int lane = 0; lane < LANES; lane++) {
    rows[lane] = smaller(tile * LANES + lane, shape->n - 1);
    weights[lane] = stored->weights + rows[lane] * bytes;
  }
  for (int64_t block = 0; block < shape->blocks; block++) {
    for (int lane = 0; lane < LANES; lane++) {
      pack_scale(packed, stored, rows[lane] * shape->blocks + block, to + scales_at(packed, block), lane);
      if (packed->asymmetric)
        to[zero_points_at(packed, block) + lane] =
            zero_point(stored->zero_points + rows[lane] * stride, block, shape->bits);
    }
  }
  packed->with->pack(packed, weights, bytes, to);
  if (stored->low_bits != NULL) pack_low_bits(packed, stored->low_bits, rows, to);
}

static size_t packed_bytes(const PackedWeights *packed) {
  return ceil_div(packed->shape.n, LANES) * packed->tile_bytes;
}

/* Stored weights, and how many bytes of each part a row has. */
typedef struct {
  MappedRange pages[PARTS];
  int64_t sizes[PARTS];
} Parts;

static Parts parts_of(const MatMulShape *shape, const StoredWeights *stored) {
  Parts parts = {
      .pages = {{.data = stored->weights},
                {.data = stored->scales},
                {.data = stored->zero_points},
                {.data = stored->low_bits}},
      .sizes = {stored_row_bytes(shape), shape->blocks * (int64_t)(stored->halves ? sizeof(uint16_t) : sizeof(float)),
                stored->zero_points != NULL ? zero_row_bytes(shape) : 0,
                stored->low_bits != NULL ? low_row_bytes(shape) : 0},
  };
  for (int part = 0; part < PARTS; part++) parts.pages[part].bytes = shape->n * parts.sizes[part];
  find_mapped_files(parts.pages, PARTS);
  return parts;
}

static void release_rows(const Parts *parts, int64_t from, int64_t to) {
  for (int part = 0; part < PARTS; part++)
    release_pages(&parts->pages[part], from * parts->sizes[part], to * parts->sizes[part]);
}

/* Return how many rows have RELEASE_BYTES. */
static int64_t rows_at_once(const Parts *parts) { return RELEASE_BYTES / parts->sizes[0] + 1; }

/* Return the key of weights in a file. */
static WeightKey key_of(const PackedWeights *packed, const Parts *parts) {
  const MatMulShape *shape = &packed->shape;
  WeightKey key = {{shape->n, shape->k}, shape->n,           shape->k,    shape->bits,
                   shape->block_size,    packed->asymmetric, packed->wide};
  const int64_t at_once = rows_at_once(parts);
  for (int64_t from = 0; from < shape->n; from += at_once) {
    const int64_t to = smaller(from + at_once, shape->n);
    for (int part = 0; part < PARTS; part++) {
      const int64_t size = parts->sizes[part];
      if (size > 0) add_to_hash(key.hash, (const uint8_t *)parts->pages[part].data + from * size, (to - from) * size);
    }
    release_rows(parts, from, to);
  }
  return key;
}

static void pack_tiles(const PackedWeights *packed, const StoredWeights *stored, const Parts *parts) {
  const int64_t rows = packed->shape.n, at_once = rows_at_once(parts);
  int64_t done = 0; /* rows whose stored weights are released */
  for (int64_t tile = 0; tile * LANES < rows; tile++) {
    pack_tile(packed, stored, tile);
    const int64_t end = smaller((tile + 1) * LANES, rows);
    if (end - done < at_once && end < rows) continue;
    release_rows(parts, done, end);
    done = end;
  }
}

/* Set the tiles to those of the thread's file, if it has one and they are in it; else allocate and pack them. */
static void find_tiles(PackedWeights *packed, const StoredWeights *stored) {
  const Parts parts = parts_of(&packed->shape, stored);
  const size_t bytes = packed_bytes(packed);
  packed->file = current_weight_file();
  if (packed->file != NULL) {
    const WeightKey key = key_of(packed, &parts);
    packed->tiles = find_weights(packed->file, &key, bytes);
    if (packed->tiles != NULL) return;
    packed->tiles = add_weights(packed->file, &key, bytes);
    if (packed->tiles == NULL) packed->file = NULL;
  }
  if (packed->tiles == NULL) packed->tiles = allocate_weights(bytes);
  if (packed->tiles != NULL) pack_tiles(packed, stored, &parts);
}

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  PackedWeights *packed = calloc(1, sizeof *packed);
  if (packed == NULL) return NULL;
  packed->with = best();
  packed->shape = *shape;
  packed->asymmetric = stored->zero_points != NULL;
  packed->wide = needs_wide_scales(shape, stored);
  packed->padded = ceil_div(shape->k, CHUNK) * CHUNK;
  packed->block_bytes = shape->block_size * LANES * shape->bits / 8;
  packed->tile_bytes = block_at(packed, shape->blocks - 1) + packed->block_bytes;
  if (packed->with != NULL) find_tiles(packed, stored);
  if (packed->tiles != NULL) return packed;
  free(packed);
  return NULL;
}

void matmul_free(PackedWeights *packed) {
  if (packed == NULL) return;
  if (packed->file != NULL) release_weights(packed->file);
  else free_weights(packed->tiles, packed_bytes(packed));
  free(packed);
}

#else

const char *matmul_instructions(void) { return NULL; }
const char *matmul_layout(void) { return NULL; }

int matmul_packable(const MatMulShape *shape, const StoredWeights *stored) { return (void)shape, (void)stored, 0; }

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  return (void)shape, (void)stored, NULL;
}

void matmul_free(PackedWeights *packed) { (void)packed; }

#endif
