#define _GNU_SOURCE
#include "common/weight_file.h"

#include <errno.h>
#include <string.h>

enum { LANES = 4, WORD = sizeof(uint64_t) };

/* Each step is a bijection of a lane for a given word, so that one changed word always changes the hash. */
static uint64_t mixed(uint64_t lane, uint64_t word) {
  lane = (lane ^ word) * 0x9e3779b97f4a7c15u;
  return lane ^ lane >> 29;
}

void add_to_hash(uint64_t hash[2], const void *data, size_t bytes) {
  const uint8_t *from = data;
  uint64_t lanes[LANES] = {hash[0], hash[1], hash[0] ^ bytes, ~hash[1]}, words[LANES];
  size_t at = 0;
  for (; bytes - at >= sizeof words; at += sizeof words) {
    memcpy(words, from + at, sizeof words);
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = mixed(lanes[lane], words[lane]);
  }
  if (at < bytes) {
    memset(words, 0, sizeof words);
    memcpy(words, from + at, bytes - at);
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = mixed(lanes[lane], words[lane]);
  }
  for (int lane = 0; lane < LANES; lane++) {
    hash[0] = mixed(hash[0], lanes[lane]);
    hash[1] = mixed(hash[1] + 1, lanes[LANES - 1 - lane]);
  }
}

#if !defined(__linux__)

int begin_weight_file(const char *path, int create, const char *layout) {
  return (void)path, (void)create, (void)layout, ENOTSUP;
}

int end_weight_file(int complete) { return (void)complete, ENOTSUP; }

WeightFile *current_weight_file(void) { return NULL; }

uint8_t *find_weights(WeightFile *file, const WeightKey *key, size_t bytes) {
  return (void)file, (void)key, (void)bytes, NULL;
}

uint8_t *add_weights(WeightFile *file, const WeightKey *key, size_t bytes) {
  return (void)file, (void)key, (void)bytes, NULL;
}

void release_weights(WeightFile *file) { (void)file; }

#else

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/sizes.h"

static const char magic[16] = {'i', 'n', 't', 'a', 'g', 'l', 'i', 'o', ' ', 'w', 'e', 'i', 'g', 'h', 't', 's'};

typedef struct {
  char magic[sizeof magic];
  char layout[LAYOUT_BYTES];
  uint64_t bytes;    /* of the file */
  uint64_t index_at; /* the index ends the file */
  uint64_t check[2]; /* the hash of the numbers above and of the index */
} Header;

typedef struct {
  WeightKey key;
  uint64_t at, bytes;
} Entry;

struct WeightFile {
  int descriptor; /* of a new file, while it is written; otherwise -1 */
  uint8_t *base;
  size_t mapped, used; /* bytes; `used` of a new file */
  Entry *entries;
  size_t count;
  int failed;       /* a new file has no more space */
  atomic_int users; /* weights, and the thread that has it open */
};

enum { HUGE_PAGE = 1 << 21 };

/* Address space of a new file, whose size is not known before it is complete. */
static const size_t reserved = sizeof(void *) > 4 ? (size_t)1 << 38 : (size_t)1 << 30;

static _Thread_local WeightFile *current;

WeightFile *current_weight_file(void) { return current; }

void release_weights(WeightFile *file) {
  if (file == NULL || atomic_fetch_sub(&file->users, 1) != 1) return;
  munmap(file->base, file->mapped);
  free(file->entries);
  free(file);
}

static uint8_t *retained(WeightFile *file, uint64_t at) {
  atomic_fetch_add(&file->users, 1);
  return file->base + at;
}

static int belongs_to_this_user_alone(const struct stat *status) {
  return S_ISREG(status->st_mode) && status->st_uid == geteuid() && (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Set the hash of a header and its index. */
static void set_check(Header *header, const Entry *entries, size_t bytes) {
  header->check[0] = header->check[1] = 0;
  uint64_t hash[2] = {0};
  add_to_hash(hash, header, sizeof *header);
  add_to_hash(hash, entries, bytes);
  memcpy(header->check, hash, sizeof hash);
}

/* Copy the index out of the mapping, so that it stays as it was checked; return whether it is sound. */
static int read_index(WeightFile *file, const char *layout) {
  Header header;
  if (file->mapped < sizeof header) return 0;
  memcpy(&header, file->base, sizeof header);
  char wanted[LAYOUT_BYTES] = {0};
  memcpy(wanted, layout, strnlen(layout, LAYOUT_BYTES - 1));
  if (memcmp(header.magic, magic, sizeof magic) != 0 || memcmp(header.layout, wanted, sizeof wanted) != 0) return 0;
  if (header.bytes != file->mapped || header.index_at < sizeof header || header.index_at > file->mapped) return 0;
  const size_t bytes = file->mapped - header.index_at;
  if (bytes % sizeof(Entry) != 0) return 0;
  file->count = bytes / sizeof(Entry);
  file->entries = malloc(bytes > 0 ? bytes : 1);
  if (file->entries == NULL) return 0;
  memcpy(file->entries, file->base + header.index_at, bytes);
  Header checked = header;
  set_check(&checked, file->entries, bytes);
  if (memcmp(&checked, &header, sizeof header) != 0) return 0;
  for (size_t i = 0; i < file->count; i++) {
    const Entry *entry = &file->entries[i];
    if (entry->at < sizeof header || entry->at % ALIGNMENT != 0 || entry->at > header.index_at) return 0;
    if (entry->bytes > header.index_at - entry->at) return 0;
  }
  return 1;
}

static size_t whole_pages(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (bytes + page - 1) / page * page;
}

/* Map an open file; return 0 or an errno. */
static int map_file(WeightFile *file, int descriptor, int create) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) return errno;
  if (!belongs_to_this_user_alone(&status)) return EINVAL;
  file->mapped = create ? reserved : (size_t)status.st_size;
  if (file->mapped == 0) return EINVAL;
  /* The mapping begins at a huge page, so that huge pages of the file are huge pages of it. */
  const size_t space = file->mapped + HUGE_PAGE;
  uint8_t *free = mmap(NULL, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (free == MAP_FAILED) return errno;
  uint8_t *start = (uint8_t *)(((uintptr_t)free + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  const int access = create ? PROT_READ | PROT_WRITE : PROT_READ;
  void *base = mmap(start, file->mapped, access, MAP_SHARED | MAP_FIXED, descriptor, 0);
  const int error = base == MAP_FAILED ? errno : 0;
  const size_t size = whole_pages(file->mapped);
  if (start > free) munmap(free, (size_t)(start - free));
  if (error != 0) munmap(start, (size_t)(free + space - start));
  else if (free + space > start + size) munmap(start + size, (size_t)(free + space - start) - size);
  if (error != 0) return error;
  file->base = base;
  madvise(base, file->mapped, MADV_HUGEPAGE);
  return 0;
}

int begin_weight_file(const char *path, int create, const char *layout) {
  if (current != NULL) return EBUSY;
  WeightFile *file = calloc(1, sizeof *file);
  if (file == NULL) return ENOMEM;
  file->users = 1;
  const int flags = (create ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int descriptor = open(path, flags, S_IRUSR | S_IWUSR);
  int error = descriptor < 0 ? errno : map_file(file, descriptor, create);
  if (error == 0 && !create && !read_index(file, layout)) error = EINVAL;
  if (error == 0 && create) {
    Header header = {0};
    memcpy(header.layout, layout, strnlen(layout, LAYOUT_BYTES - 1));
    error = posix_fallocate(descriptor, 0, sizeof header);
    if (error == 0) memcpy(file->base, &header, sizeof header);
    file->used = sizeof header;
  }
  file->descriptor = create ? descriptor : -1;
  if (descriptor >= 0 && (error != 0 || !create)) close(descriptor);
  if (error == 0) {
    current = file;
  } else {
    if (file->base != NULL) munmap(file->base, file->mapped);
    free(file->entries);
    free(file);
  }
  return error;
}

/* Give a new file more space at its end; return where it begins, or 0 where there is none. */
static uint64_t extended(WeightFile *file, size_t bytes) {
  const size_t at = (file->used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (file->failed || bytes > file->mapped || at > file->mapped - bytes) return 0;
  if (posix_fallocate(file->descriptor, (off_t)file->used, (off_t)(at + bytes - file->used)) != 0) {
    file->failed = 1;
    return 0;
  }
  file->used = at + bytes;
  return at;
}

/* Map a new file again, at the same address. Its pages were written one by one; the system gives them up, and reads huge pages
 * where its file system has them. */
static void map_for_reading(WeightFile *file) {
  const size_t kept = whole_pages(file->used);
  munmap(file->base + kept, file->mapped - kept);
  file->mapped = kept;
  if (mmap(file->base, kept, PROT_READ, MAP_SHARED | MAP_FIXED, file->descriptor, 0) == MAP_FAILED) {
    mprotect(file->base, kept, PROT_READ); /* the first mapping is still there */
  } else {
    posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_DONTNEED);
    madvise(file->base, kept, MADV_HUGEPAGE);
  }
}

int end_weight_file(int complete) {
  WeightFile *file = current;
  current = NULL;
  if (file == NULL) return EINVAL;
  int error = 0;
  if (file->descriptor >= 0) {
    Header header;
    memcpy(&header, file->base, sizeof header);
    const size_t bytes = file->count * sizeof(Entry);
    header.index_at = complete ? extended(file, bytes > 0 ? bytes : 1) : 0;
    if (header.index_at == 0) {
      error = complete ? ENOSPC : ECANCELED;
    } else {
      memcpy(file->base + header.index_at, file->entries, bytes);
      header.bytes = header.index_at + bytes;
      memcpy(header.magic, magic, sizeof magic);
      set_check(&header, file->entries, bytes);
      memcpy(file->base, &header, sizeof header);
      if (fdatasync(file->descriptor) != 0 || msync(file->base, file->used, MS_SYNC) != 0) error = errno;
    }
    map_for_reading(file);
    close(file->descriptor);
    file->descriptor = -1;
  }
  release_weights(file);
  return error;
}

uint8_t *find_weights(WeightFile *file, const WeightKey *key, size_t bytes) {
  for (size_t i = 0; i < file->count; i++) {
    const Entry *entry = &file->entries[i];
    if (entry->bytes == bytes && memcmp(&entry->key, key, sizeof *key) == 0) return retained(file, entry->at);
  }
  return NULL;
}

uint8_t *add_weights(WeightFile *file, const WeightKey *key, size_t bytes) {
  if (file->descriptor < 0) return NULL;
  Entry *entries = realloc(file->entries, times(file->count + 1, sizeof(Entry)));
  if (entries == NULL) return NULL;
  file->entries = entries;
  const uint64_t at = extended(file, bytes);
  if (at == 0) return NULL;
  file->entries[file->count++] = (Entry){*key, at, bytes};
  return retained(file, at);
}

#endif
