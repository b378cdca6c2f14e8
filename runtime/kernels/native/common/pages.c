#include "common/pages.h"

#if defined(__linux__)

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIN_BYTES = 1 << 18 /* below this, reading the file again takes less time than the search */ };

/* Return whether a line of /proc/self/maps names the inode of a file, its fifth field. */
static int has_inode(const char *line) {
  unsigned long inode = 0;
  return sscanf(line, "%*s %*s %*s %*s %lu", &inode) == 1 && inode != 0;
}

void find_mapped_files(MappedRange *ranges, int count) {
  int64_t bytes = 0;
  int left = 0; /* ranges not found yet */
  for (int i = 0; i < count; i++) {
    ranges[i].of_file = 0;
    bytes += ranges[i].bytes;
    left += ranges[i].data != NULL;
  }
  FILE *maps = bytes < MIN_BYTES ? NULL : fopen("/proc/self/maps", "r");
  if (maps == NULL) return;
  char line[4352]; /* a path, and the fields before it */
  while (left > 0 && fgets(line, sizeof line, maps) != NULL) {
    char *at = NULL;
    const uintptr_t start = strtoull(line, &at, 16), end = *at == '-' ? strtoull(at + 1, NULL, 16) : 0;
    for (int i = 0; i < count; i++) {
      const uintptr_t from = (uintptr_t)ranges[i].data;
      if (from < start || from >= end) continue;
      ranges[i].of_file = ranges[i].bytes <= (int64_t)(end - from) && has_inode(line);
      left--;
    }
  }
  fclose(maps);
}

void release_pages(const MappedRange *range, int64_t from, int64_t to) {
  if (!range->of_file) return;
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), data = (uintptr_t)range->data;
  const uintptr_t first = (data + (uintptr_t)from + page - 1) / page * page,
                  last = (data + (uintptr_t)to) / page * page;
  if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

#else

void find_mapped_files(MappedRange *ranges, int count) {
  for (int i = 0; i < count; i++) ranges[i].of_file = 0;
}

void release_pages(const MappedRange *range, int64_t from, int64_t to) { (void)range, (void)from, (void)to; }

#endif
