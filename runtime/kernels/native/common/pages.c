#include "common/pages.h"

#if defined(__linux__)

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORTHWHILE = 1 << 18 };

/* Whether the inode of a line of the list is one, behind four other fields. */
static int has_inode(const char *line) {
  unsigned long inode = 0;
  return sscanf(line, "%*s %*s %*s %*s %lu", &inode) == 1 && inode != 0;
}

void look_up_pages(Pages *parts, int count) {
  int64_t bytes = 0;
  int left = 0; /* to be found */
  for (int i = 0; i < count; i++) {
    parts[i].of_file = 0;
    bytes += parts[i].bytes;
    left += parts[i].data != NULL;
  }
  FILE *maps = bytes < WORTHWHILE ? NULL : fopen("/proc/self/maps", "r");
  if (maps == NULL) return;
  char line[4352]; /* a path and what stands before it */
  while (left > 0 && fgets(line, sizeof line, maps) != NULL) {
    char *at = NULL;
    const uintptr_t start = strtoull(line, &at, 16), end = *at == '-' ? strtoull(at + 1, NULL, 16) : 0;
    for (int i = 0; i < count; i++) {
      const uintptr_t from = (uintptr_t)parts[i].data;
      if (from < start || from >= end) continue;
      parts[i].of_file = parts[i].bytes <= (int64_t)(end - from) && has_inode(line);
      left--;
    }
  }
  fclose(maps);
}

void forget_pages(const Pages *part, int64_t from, int64_t to) {
  if (!part->of_file) return;
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), data = (uintptr_t)part->data;
  const uintptr_t first = (data + (uintptr_t)from + page - 1) / page * page, last = (data + (uintptr_t)to) / page * page;
  if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

#else

void look_up_pages(Pages *parts, int count) {
  for (int i = 0; i < count; i++) parts[i].of_file = 0;
}

void forget_pages(const Pages *part, int64_t from, int64_t to) { (void)part, (void)from, (void)to; }

#endif
