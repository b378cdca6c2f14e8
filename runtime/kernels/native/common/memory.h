/* Memory of packed weights: one after the other in huge pages, which spare the processor's page table. */
#ifndef INTAGLIO_MEMORY_H
#define INTAGLIO_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* At a multiple of 64; NULL where memory did not suffice. To be given to free_weights, with the same size. */
uint8_t *allocate_weights(size_t bytes);

void free_weights(uint8_t *weights, size_t bytes);

#endif
