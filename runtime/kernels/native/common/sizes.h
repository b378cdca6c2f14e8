/* Arithmetic of sizes that saturates instead of overflowing: a size of SIZE_MAX bytes is never available, so an allocation of
 * it fails. The numbers are 0 or more. */
#ifndef INTAGLIO_SIZES_H
#define INTAGLIO_SIZES_H

#include <stddef.h>
#include <stdint.h>

static inline size_t times(size_t a, size_t b) {
  size_t product;
  return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

static inline size_t plus(size_t a, size_t b) {
  size_t sum;
  return __builtin_add_overflow(a, b, &sum) ? SIZE_MAX : sum;
}

/* Return the product of a tensor's dimensions, or INT64_MAX if it is larger. */
static inline int64_t count_of(const int64_t *sizes, size_t rank) {
  int64_t count = 1;
  for (size_t axis = 0; axis < rank; axis++)
    if (sizes[axis] == 0) return 0; /* whatever the others are */
  for (size_t axis = 0; axis < rank; axis++)
    if (__builtin_mul_overflow(count, sizes[axis], &count)) return INT64_MAX;
  return count;
}

#endif
