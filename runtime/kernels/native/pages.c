#include "pages.h"

#if defined(__linux__)

#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORTHWHILE = 1 << 18 }; /* reading the list of mappings takes longer than reading so many bytes again */

/* Whether from .. to lies in one mapping of a file. */
static int is_file(FILE *maps, uintptr_t from, uintptr_t to) {
  char line[4352]; /* a path and what stands before it */
  rewind(maps);
  while (fgets(line, sizeof line, maps) != NULL) {
    uintptr_t start, end;
    unsigned long inode;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %lu", &start, &end, &inode) != 3) continue;
    if (start <= from && to <= end) return inode != 0;
  }
  return 0;
}

void forget_file_pages(const void *data, int64_t bytes) {
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  const uintptr_t from = ((uintptr_t)data + page - 1) / page * page, to = ((uintptr_t)data + (uintptr_t)bytes) / page * page;
  if (to <= from || to - from < WORTHWHILE) return;
  FILE *maps = fopen("/proc/self/maps", "r");
  if (maps == NULL) return;
  if (is_file(maps, from, to)) madvise((void *)from, to - from, MADV_DONTNEED);
  fclose(maps);
}

#else

void forget_file_pages(const void *data, int64_t bytes) { (void)data, (void)bytes; }

#endif
