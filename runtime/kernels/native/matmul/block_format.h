/* The formats of quantized blocks that all operators have. */
#ifndef INTAGLIO_BLOCK_FORMAT_H
#define INTAGLIO_BLOCK_FORMAT_H

#include "ort/node.h"

/* Refuse the attributes `bits` and `block_size`, whose names end with `suffix`, unless they are a format of weights.h and
 * the input `low_bits` is there for elements of 5 bits alone. */
void check_block_format(Node *node, int bits, int64_t block_size, const char *suffix, size_t low_bits);

#endif
