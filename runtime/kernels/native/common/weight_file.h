/* A file of packed weights that processes map, so that they share its memory and need not pack the weights again.
 *
 * The file has a Header, the weights, each at a multiple of 64 bytes, and an index of Entry. It is found by its content: an
 * entry's key has a hash of the weights as a graph stores them. The hash finds accidents, not attacks: the file must belong to
 * the user of the process, and nobody else may write it.
 *
 * A thread has at most one file open, from `begin_weight_file` to `end_weight_file`; weights stay mapped after that until
 * they are released. On Linux alone.
 */
#ifndef INTAGLIO_WEIGHT_FILE_H
#define INTAGLIO_WEIGHT_FILE_H

#include <stddef.h>
#include <stdint.h>

enum { LAYOUT_BYTES = 48 };

typedef struct WeightFile WeightFile;

/* Which weights an entry has. All bytes are compared. */
typedef struct {
  uint64_t hash[2]; /* of the weights as they are stored */
  int64_t n, k;
  int32_t bits, block_size, asymmetric, wide_scales;
} WeightKey;

/* Add bytes to a hash. */
void add_to_hash(uint64_t hash[2], const void *data, size_t bytes);

/* Open the file of this thread. `create` writes a new file, which must not exist; otherwise it is read. `layout` names how the
 * weights are packed, in at most LAYOUT_BYTES - 1 bytes. Return 0, or an errno: EINVAL for a file that is damaged, of another
 * layout, or that others may write; ENOTSUP on this system. */
int begin_weight_file(const char *path, int create, const char *layout);

/* Close the file of this thread. Of a new file, write the index if `complete`, and return 0, or an errno: then the file is of
 * no use to others, and the weights in it are as good as before. */
int end_weight_file(int complete);

/* Return the file of this thread, or NULL. */
WeightFile *current_weight_file(void);

/* Return the weights of a key, or NULL where the file has none of so many bytes. They are to be released. */
uint8_t *find_weights(WeightFile *file, const WeightKey *key, size_t bytes);

/* Return memory of a new file for the weights of a key, or NULL where it is not a new file or there is no space. The memory may
 * be written until `end_weight_file`, and is to be released. */
uint8_t *add_weights(WeightFile *file, const WeightKey *key, size_t bytes);

/* Release weights of a file: it is unmapped with the last of them. */
void release_weights(WeightFile *file);

#endif
