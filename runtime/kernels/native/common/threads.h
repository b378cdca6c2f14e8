/* Processors for threads. */
#ifndef INTAGLIO_THREADS_H
#define INTAGLIO_THREADS_H

/* Return how many processors this process may use; they are counted once. */
int usable_processors(void);

#endif
