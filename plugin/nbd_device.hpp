/* SPDX-License-Identifier: BSD-3-Clause */
/* A file beside the image that another NBD server has, named by a URI; by libnbd, where the build found it. */
#ifndef QLUKS_PLUGIN_NBD_DEVICE_HPP
#define QLUKS_PLUGIN_NBD_DEVICE_HPP

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/block_device.hpp"

struct nbd_handle;

namespace qluks {

/* nbd://, nbds://, nbd+unix://, nbds+unix://, nbd+vsock://, nbds+vsock:// */
bool is_nbd_uri(const std::string& source);

/* Requests share a few connections.  One that is lost fails its request with EIO and is made anew by the next.  A
 * server that does not answer in time fails the request, as one that is gone does; when nbdkit is told to end it has no
 * time any more. */
class NbdDevice final : public BlockDevice {
 public:
  /* To be written if it is asked for and the server allows it: it has to flush, to take requests of any offset and
   * size, and to promise that its connections see each other's bytes. */
  static Result<std::unique_ptr<NbdDevice>> connect(const std::string& uri, bool to_write = false);
  ~NbdDevice() override;

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return limits_; }
  Status read(std::span<std::byte> dst, uint64_t offset) override;
  Result<Extent> extent(uint64_t offset, uint64_t max) override;

  WriteAbilities write_abilities() const noexcept override { return abilities_; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override;
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override;
  /* Fails for ever once a connection was lost that may have been written to: the server that comes back need not have
   * what it had acknowledged. */
  Status flush() override;

 private:
  Result<Extent> claimed_extent(uint64_t offset, uint64_t max);
  explicit NbdDevice(std::string uri) : uri_(std::move(uri)) {}

  struct Close {
    void operator()(nbd_handle* handle) const noexcept;
  };
  using Handle = std::unique_ptr<nbd_handle, Close>;
  class Lease;

  Result<Handle> open_connection() const;
  void learn_limits(nbd_handle* handle, bool to_write);
  template <class Start>
  Status change(Start start);
  Status read_pieces(std::span<std::byte> dst, uint64_t offset);

  const std::string uri_;
  /* As the first connection found them. */
  uint64_t size_ = 0;
  Limits limits_;
  WriteAbilities abilities_;
  bool can_extents_ = false;

  std::mutex mutex_; /* guards what follows; never held while waiting for the server */
  std::condition_variable returned_;
  std::vector<Handle> idle_;
  unsigned in_use_ = 0;
  uint64_t changes_ = 0; /* begun */
  uint64_t flushed_ = 0; /* of those, stable */
  bool lost_ = false;    /* one of them, perhaps */
};

} // namespace qluks

#endif
