/* Aligned memory, and memory of packed weights. */
#ifndef INTAGLIO_MEMORY_H
#define INTAGLIO_MEMORY_H

#include <stddef.h>
#include <stdint.h>

enum { ALIGNMENT = 64 /* bytes: a cache line, and a vector of AVX512 */ };

/* Return memory at a multiple of ALIGNMENT, to be freed by `free_aligned`, or NULL if there is not enough. */
void *allocate_aligned(size_t bytes);

void free_aligned(void *memory);

/* Return memory at a multiple of ALIGNMENT for weights that are read all the time, or NULL if there is not enough. On Linux
 * weights follow each other in huge pages, so that the processor needs few entries of its page table. */
uint8_t *allocate_weights(size_t bytes);

/* Free memory that `allocate_weights` returned for this many bytes. */
void free_weights(uint8_t *weights, size_t bytes);

#endif
