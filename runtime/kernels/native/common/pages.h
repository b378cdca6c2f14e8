/* Memory of mapped files, whose pages can be released once their content was copied. */
#ifndef INTAGLIO_PAGES_H
#define INTAGLIO_PAGES_H

#include <stdint.h>

typedef struct {
  const void *data;
  int64_t bytes;
  int of_file; /* 1 if it is in the mapping of a file; set by find_mapped_files */
} MappedRange;

/* Set `of_file` of each range: 0 for all if they are small, and on other systems than Linux. */
void find_mapped_files(MappedRange *ranges, int count);

/* Release the whole pages in bytes from .. to of a file's mapping; the system reads them again when they are needed. */
void release_pages(const MappedRange *range, int64_t from, int64_t to);

#endif
