/* SPDX-License-Identifier: BSD-3-Clause */
/* An nbdkit plugin that serves a file, and fails or lies when it is told to:
 *
 *      nbdkit ./faulty_plugin.so file=IMAGE [other=IMAGE2] control=FILE
 *      nbdkit ./faulty_plugin.so writable=IMAGE control=FILE
 *
 * The control file is shared memory with whoever tests: 64-bit words in the order of Control, in the machine's byte
 * order (qluks.FaultControl). */
#define NBDKIT_API_VERSION 2
#include <fcntl.h>
#include <nbdkit-plugin.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using Word = std::atomic<uint64_t>;

enum Lie : uint64_t {
  truth = 0,
  flip_bits = 1,     /* in one read of eight, one bit */
  swap_images = 2,   /* each read comes from one of the two files */
  flip_and_swap = 3, /* both */
};

struct Control {
  Word calls;   /* since it was last set to 0 */
  Word fail_at; /* this call fails, from 1; 0: none */
  Word always;  /* and all after it */
  Word error;   /* errno to fail with */
  Word hits;    /* calls that have failed */
  Word lie;     /* a Lie */
  Word seed;    /* of what is random */
  Word size;    /* of the image, instead of its own; 0: its own */
  Word hang;    /* reads of the export "hung" wait as long as this is not 0 */
  Word hanging; /* that many of them wait now */
};

Control* control = nullptr;
int files[2] = {-1, -1};
bool writable = false;

/* One more call; is it to fail? */
bool fails(const char* what) {
  const uint64_t call = ++control->calls;
  const uint64_t at = control->fail_at;
  if (at == 0 || (control->always != 0 ? call < at : call != at)) return false;
  ++control->hits;
  nbdkit_error("call %llu, %s: injected failure", static_cast<unsigned long long>(call), what);
  nbdkit_set_error(static_cast<int>(control->error));
  return true;
}

int open_file(const char* path, int flags) {
  const int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) nbdkit_error("%s: %m", path);
  return fd;
}

int map_control(const char* path) {
  const int fd = open_file(path, O_RDWR);
  if (fd < 0) return -1;
  void* memory = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) return -1;
  control = static_cast<Control*>(memory);
  return 0;
}

int config(const char* key, const char* value) {
  if (strcmp(key, "control") == 0) return map_control(value);
  const bool other = strcmp(key, "other") == 0;
  writable = writable || strcmp(key, "writable") == 0;
  if (writable) return (files[0] = open_file(value, O_RDWR)) < 0 ? -1 : 0;
  if (!other && strcmp(key, "file") != 0) {
    nbdkit_error("unknown parameter %s", key);
    return -1;
  }
  return (files[other] = open_file(value, O_RDONLY)) < 0 ? -1 : 0;
}

int config_complete() {
  if (control != nullptr && files[0] >= 0) return 0;
  nbdkit_error("file= or writable=, and control= are needed");
  return -1;
}

/* The handle of a connection says whether its export hangs. */
bool of_hung_export = true;
bool of_other_export = false;

void* open_connection(int /*readonly*/) {
  if (fails("open")) return nullptr;
  const char* name = nbdkit_export_name();
  return name != nullptr && strcmp(name, "hung") == 0 ? &of_hung_export : &of_other_export;
}

void wait_if_hung(void* handle) {
  if (handle != &of_hung_export || control->hang == 0) return;
  ++control->hanging;
  while (control->hang != 0) usleep(2000);
  --control->hanging;
}

int64_t get_size(void* /*handle*/) {
  if (fails("get_size")) return -1;
  if (control->size != 0) return static_cast<int64_t>(control->size);
  struct stat st {};
  return fstat(files[0], &st) != 0 ? -1 : st.st_size;
}

int can_extents(void* /*handle*/) { return fails("can_extents") ? -1 : 1; }
int can_cache(void* /*handle*/) { return fails("can_cache") ? -1 : NBDKIT_CACHE_NATIVE; }
int cache(void* /*handle*/, uint32_t /*count*/, uint64_t /*offset*/, uint32_t /*flags*/) {
  return fails("cache") ? -1 : 0;
}

/* All of `count`, with zeroes behind the end of the file. */
int read_file(int fd, void* buffer, uint32_t count, uint64_t offset) {
  auto* to = static_cast<unsigned char*>(buffer);
  memset(to, 0, count);
  while (count > 0) {
    const ssize_t n = pread(fd, to, count, static_cast<off_t>(offset));
    if (n < 0) return -1;
    if (n == 0) return 0;
    to += n;
    count -= static_cast<uint32_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return 0;
}

int read(void* handle, void* buffer, uint32_t count, uint64_t offset, uint32_t /*flags*/) {
  wait_if_hung(handle);
  if (fails("pread")) return -1;
  const uint64_t lie = control->lie;
  std::minstd_rand random(static_cast<uint32_t>(control->seed * 7919 + control->calls));
  random.discard(3);
  const bool swap = lie >= swap_images && random() % 2 != 0;
  if (read_file(files[swap && files[1] >= 0], buffer, count, offset) != 0) return -1;
  if ((lie == flip_bits || lie == flip_and_swap) && random() % 8 == 0) {
    static_cast<unsigned char*>(buffer)[random() % count] ^= static_cast<unsigned char>(1U << random() % 8);
  }
  return 0;
}

int can_write(void* /*handle*/) { return writable ? 1 : 0; }
int can_multi_conn(void* /*handle*/) { return 1; }
int can_flush(void* /*handle*/) { return fails("can_flush") ? -1 : 1; }
int can_trim(void* /*handle*/) { return fails("can_trim") ? -1 : 1; }

int write(void* /*handle*/, const void* buffer, uint32_t count, uint64_t offset, uint32_t /*flags*/) {
  if (fails("pwrite")) return -1;
  return pwrite(files[0], buffer, count, static_cast<off_t>(offset)) == static_cast<ssize_t>(count) ? 0 : -1;
}

int flush(void* /*handle*/, uint32_t /*flags*/) { return fails("flush") ? -1 : 0; }

/* Nothing comes of it, as with storage that has no room to give back. */
int trim(void* /*handle*/, uint32_t /*count*/, uint64_t /*offset*/, uint32_t /*flags*/) {
  return fails("trim") ? -1 : 0;
}

/* All of it is data. */
int extents(void* /*handle*/, uint32_t count, uint64_t offset, uint32_t /*flags*/, struct nbdkit_extents* extents) {
  if (fails("extents")) return -1;
  return nbdkit_add_extent(extents, offset, count, 0);
}

nbdkit_plugin make_plugin() {
  nbdkit_plugin p = {};
  p.name = "faulty";
  p.config = config;
  p.config_complete = config_complete;
  p.open = open_connection;
  p.get_size = get_size;
  p.can_extents = can_extents;
  p.can_cache = can_cache;
  p.pread = read;
  p.can_write = can_write;
  p.can_multi_conn = can_multi_conn;
  p.can_flush = can_flush;
  p.can_trim = can_trim;
  p.pwrite = write;
  p.flush = flush;
  p.trim = trim;
  p.extents = extents;
  p.cache = cache;
  p.errno_is_preserved = 0;
  return p;
}

nbdkit_plugin plugin = make_plugin();

} // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
