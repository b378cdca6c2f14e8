/* Giving back the memory of a mapped file whose content is no longer needed. */
#ifndef INTAGLIO_PAGES_H
#define INTAGLIO_PAGES_H

#include <stdint.h>

/* Let go of the whole pages within data[bytes] if they are a file's, mapped for reading: they come back from the file
 * when they are read again. Other memory stays as it is, since there it would be lost. */
void forget_file_pages(const void *data, int64_t bytes);

#endif
