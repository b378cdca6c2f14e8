#include "matmul/block_format.h"

#include "matmul/weights.h"

void check_block_format(Node *node, int bits, int64_t block_size, const char *suffix, size_t low_bits) {
  if (bits != 4 && bits != FIVE_BITS && bits != 8)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute bits%s is %d; it must be 4, 5 or 8", suffix, bits);
  if (bits == FIVE_BITS && block_size < LOW_STEP)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute block_size%s is %d; it must be %d or more with 5 bits", suffix,
           (int)block_size, LOW_STEP);
  if ((block_size & (block_size - 1)) != 0)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute block_size%s is %d; it must be a power of two", suffix,
           (int)block_size);
  if (node->status != NULL) return;
  if (bits != FIVE_BITS) check_no_input(node, low_bits, "attribute bits is not 5");
  else if (!has_input(node, low_bits))
    refuse(node, ORT_INVALID_ARGUMENT, "input %s is missing; elements of 5 bits need it",
           node->op->inputs[low_bits].name);
}
