#define _GNU_SOURCE
#include "threads.h"

#if defined(__linux__)

#include <sched.h>

int usable_processors(void) {
  cpu_set_t set;
  const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  return count > 0 ? count : 1;
}

#elif defined(__unix__) || defined(__APPLE__)

#include <unistd.h>

int usable_processors(void) {
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? (int)count : 1;
}

#else

int usable_processors(void) { return 8; }

#endif
