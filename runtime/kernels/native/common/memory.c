#define _GNU_SOURCE
#include "common/memory.h"

#include <stdlib.h>

#if defined(_WIN32)

#include <malloc.h>

void *allocate_aligned(size_t bytes) { return _aligned_malloc(bytes, ALIGNMENT); }

void free_aligned(void *memory) { _aligned_free(memory); }

#else

void *allocate_aligned(size_t bytes) { return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT); }

void free_aligned(void *memory) { free(memory); }

#endif

#if defined(__linux__)

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* Address space from which weights take their memory one after the other, so that all huge pages are filled but the last.
 * What nothing was written to is no memory yet. */
typedef struct Space Space;
struct Space {
  Space *next;
  void *mapping;
  size_t mapped;
  uint8_t *free, *end;
  int64_t users; /* weights that are in it */
};

enum { HUGE_PAGE = 1 << 21, LEAST = 1 << 16 /* bytes below which the heap serves */, SPACE = 1 << 30 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Space *spaces; /* the newest first, which alone is taken from */

static Space *open_space(size_t bytes) {
  Space *space = malloc(sizeof *space);
  if (space == NULL) return NULL;
  const size_t mapped = bytes + HUGE_PAGE; /* so much that it can begin with a huge page */
  void *mapping = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    free(space);
    return NULL;
  }
  uint8_t *base = (uint8_t *)(((uintptr_t)mapping + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  madvise(base, bytes, MADV_HUGEPAGE);
  *space = (Space){spaces, mapping, mapped, base, base + bytes, 0};
  spaces = space;
  return space;
}

uint8_t *allocate_weights(size_t bytes) {
  if (bytes < LEAST) return allocate_aligned(bytes);
  const size_t size = (bytes + 63) / 64 * 64;
  pthread_mutex_lock(&lock);
  Space *space = spaces;
  if (space == NULL || (size_t)(space->end - space->free) < size) space = size < SPACE ? open_space(SPACE) : NULL;
  if (space == NULL) space = open_space((size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  uint8_t *weights = NULL;
  if (space != NULL) {
    weights = space->free;
    space->free += size;
    space->users++;
  }
  pthread_mutex_unlock(&lock);
  return weights;
}

void free_weights(uint8_t *weights, size_t bytes) {
  if (weights == NULL) return;
  if (bytes < LEAST) {
    free_aligned(weights);
    return;
  }
  pthread_mutex_lock(&lock);
  Space **at = &spaces;
  while (weights < (uint8_t *)(*at)->mapping || weights >= (*at)->end) at = &(*at)->next;
  Space *space = *at;
  if (--space->users == 0) {
    *at = space->next;
    munmap(space->mapping, space->mapped);
    free(space);
  } else { /* others still need the address space, not this memory */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)weights + page - 1) / page * page, to = ((uintptr_t)weights + bytes) / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
  }
  pthread_mutex_unlock(&lock);
}

#else

uint8_t *allocate_weights(size_t bytes) { return allocate_aligned(bytes); }

void free_weights(uint8_t *weights, size_t bytes) { (void)bytes, free_aligned(weights); }

#endif
