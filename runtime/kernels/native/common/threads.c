#define _GNU_SOURCE
#include "common/threads.h"

#include <stdatomic.h>

#if defined(__linux__)

#include <sched.h>

static int count_processors(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

#elif defined(_WIN32)

#include <windows.h>

static int count_processors(void) {
  DWORD_PTR usable = 0, all = 0;
  int count = 0;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &usable, &all)) return 0;
  for (; usable != 0; usable &= usable - 1) count++;
  return count;
}

#else

#include <unistd.h>

static int count_processors(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }

#endif

int usable_processors(void) {
  static atomic_int known; /* 0 until it is counted */
  int count = atomic_load_explicit(&known, memory_order_relaxed);
  if (count == 0) {
    count = count_processors();
    if (count < 1) count = 1;
    atomic_store_explicit(&known, count, memory_order_relaxed);
  }
  return count;
}
