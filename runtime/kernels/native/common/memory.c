#define _GNU_SOURCE
#include "common/memory.h"

#include <stdint.h>
#include <stdlib.h>

#if defined(_WIN32)

#include <malloc.h>

static void *allocate(size_t bytes) { return _aligned_malloc(bytes, ALIGNMENT); }

void free_aligned(void *memory) { _aligned_free(memory); }

#else

static void *allocate(size_t bytes) {
  return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

void free_aligned(void *memory) { free(memory); }

#endif

enum { MARGIN = 1 << 22 /* bytes by which a size grows when it is rounded up */ };

/* Return whether a size can be rounded up, and is one that memory can have. */
static int is_possible(size_t bytes) { return bytes <= PTRDIFF_MAX - MARGIN; }

void *allocate_aligned(size_t bytes) { return is_possible(bytes) ? allocate(bytes > 0 ? bytes : 1) : NULL; }

#if defined(__linux__)

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* Address space from which weights are allocated one after the other, so that all huge pages but the last are full. Pages
 * that were never written to take no memory. */
typedef struct Arena Arena;
struct Arena {
  Arena *next;
  void *mapping;
  size_t mapped;
  uint8_t *free, *end;
  int64_t users; /* allocations in it */
};

enum { HUGE_PAGE = 1 << 21, SMALL_BYTES = 1 << 16 /* smaller allocations come from the heap */, ARENA_BYTES = 1 << 30 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Arena *arenas; /* the newest first; only that one has free space */

static Arena *open_arena(size_t bytes) {
  Arena *arena = malloc(sizeof *arena);
  if (arena == NULL) return NULL;
  const size_t mapped = bytes + HUGE_PAGE; /* enough to begin at a huge page */
  void *mapping = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    free(arena);
    return NULL;
  }
  uint8_t *base = (uint8_t *)(((uintptr_t)mapping + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  madvise(base, bytes, MADV_HUGEPAGE);
  *arena = (Arena){arenas, mapping, mapped, base, base + bytes, 0};
  arenas = arena;
  return arena;
}

uint8_t *allocate_weights(size_t bytes) {
  if (bytes < SMALL_BYTES) return allocate_aligned(bytes);
  if (!is_possible(bytes)) return NULL;
  const size_t size = (bytes + 63) / 64 * 64;
  pthread_mutex_lock(&lock);
  Arena *arena = arenas;
  if (arena == NULL || (size_t)(arena->end - arena->free) < size)
    arena = size < ARENA_BYTES ? open_arena(ARENA_BYTES) : NULL;
  if (arena == NULL) arena = open_arena((size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  uint8_t *weights = NULL;
  if (arena != NULL) {
    weights = arena->free;
    arena->free += size;
    arena->users++;
  }
  pthread_mutex_unlock(&lock);
  return weights;
}

void free_weights(uint8_t *weights, size_t bytes) {
  if (weights == NULL) return;
  if (bytes < SMALL_BYTES) {
    free_aligned(weights);
    return;
  }
  pthread_mutex_lock(&lock);
  Arena **at = &arenas;
  while (weights < (uint8_t *)(*at)->mapping || weights >= (*at)->end) at = &(*at)->next;
  Arena *arena = *at;
  if (--arena->users == 0) {
    *at = arena->next;
    munmap(arena->mapping, arena->mapped);
    free(arena);
  } else { /* other weights use the address space, but these pages can be released */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)weights + page - 1) / page * page,
                    to = ((uintptr_t)weights + bytes) / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
  }
  pthread_mutex_unlock(&lock);
}

#else

uint8_t *allocate_weights(size_t bytes) { return allocate_aligned(bytes); }

void free_weights(uint8_t *weights, size_t bytes) { (void)bytes, free_aligned(weights); }

#endif
