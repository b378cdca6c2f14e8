/* How many processors this process may use, which is asked once. */
#ifndef INTAGLIO_THREADS_H
#define INTAGLIO_THREADS_H

int usable_processors(void);

#endif
