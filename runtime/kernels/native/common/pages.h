/* Memory of mapped files, which need not stay when what is in it has been copied. */
#ifndef INTAGLIO_PAGES_H
#define INTAGLIO_PAGES_H

#include <stdint.h>

typedef struct {
  const void *data;
  int64_t bytes;
  int of_file; /* whether it lies in the mapping of a file: look_up_pages says it */
} Pages;

/* Which of the parts lie in mapped files. It takes longer than to read a few thousand bytes again: those count as none. */
void look_up_pages(Pages *parts, int count);

/* Drops the whole pages in bytes from .. to of a file's part: they are read again when they are needed. */
void forget_pages(const Pages *part, int64_t from, int64_t to);

#endif
