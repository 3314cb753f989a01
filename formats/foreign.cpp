/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/foreign.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

namespace qluks {

namespace {

using std::string_view_literals::operator""sv;

struct Signature {
  uint64_t offset;
  std::string_view bytes;
  std::string_view name;
  std::string_view way_out;
};

constexpr std::string_view convert = "convert it with qemu-img convert -O qcow2 or -O raw";

constexpr Signature signatures[] = {
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "xz-compressed", "read it through nbdkit's xz filter, --filter=qluks --filter=xz"},
    {0, "\x1f\x8b"sv, "gzip-compressed", "read it through nbdkit's gzip filter, --filter=qluks --filter=gzip"},
    {0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed", "unpack it with zstd -d"},
    {0, "BZh"sv, "bzip2-compressed", "unpack it with bunzip2"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", "unpack the image in it with 7z x"},
    {0, "PK\3\4"sv, "a zip archive", "unpack the image in it with unzip"},
    {257, "ustar"sv, "a tar archive", "name the image in it: --filter=qluks --filter=tar tar-entry=NAME"},
    {0, "KDMV"sv, "a VMDK image", convert},
    {0, "COWD"sv, "a VMDK image", convert},
    {0, "# Disk DescriptorFile"sv, "the descriptor of a VMDK image", convert},
    {0, "vhdxfile"sv, "a VHDX image", convert},
    {0, "conectix"sv, "a VHD image", convert},
    {64, "\x7f\x10\xda\xbe"sv, "a VDI image", convert},
    {0, "QED\0"sv, "a QED image", convert},
    {0, "WithoutFreeSpace"sv, "a Parallels image", convert},
    {0, "WithouFreSpacExt"sv, "a Parallels image", convert},
    {3, "-FVE-FS-"sv, "a BitLocker volume", "cryptsetup bitlkOpen opens it"},
    {3, "NTFS    "sv, "an NTFS file system", ""},
    {3, "EXFAT   "sv, "an exFAT file system", ""},
    {54, "FAT1"sv, "a FAT file system", ""},
    {82, "FAT32   "sv, "a FAT file system", ""},
    {0, "XFSB"sv, "an XFS file system", ""},
    {0, "hsqs"sv, "a squashfs file system", ""},
    {1080, "\x53\xef"sv, "an ext2, ext3 or ext4 file system", ""},
    {512, "LABELONE"sv, "an LVM physical volume", ""},
    {4086, "SWAPSPACE2"sv, "swap space", ""},
    {32769, "CD001"sv, "an ISO 9660 file system", ""},
    {65600, "_BHRfS_M"sv, "a btrfs file system", ""},
};

/* The head, and the places further behind that are looked at. */
class Places {
 public:
  explicit Places(BlockDevice& device) {
    if (!fill(device, 0, head_)) head_.clear();
    if (!fill(device, tail_offset, tail_)) tail_.clear();
  }

  bool has(uint64_t offset, std::string_view bytes) const {
    const bool in_head = offset < tail_offset;
    const std::string& from = in_head ? head_ : tail_;
    const uint64_t at = in_head ? offset : offset - tail_offset;
    return at <= from.size() && std::string_view(from).substr(static_cast<size_t>(at)).starts_with(bytes);
  }

  std::string_view head() const { return head_; }

 private:
  static constexpr uint64_t tail_offset = 32 << 10;

  static bool fill(BlockDevice& device, uint64_t offset, std::string& into) {
    constexpr std::array<uint64_t, 2> most = {4096 + 512, 33 << 10};
    const uint64_t present = device.size() > offset ? device.size() - offset : 0;
    into.resize(static_cast<size_t>(std::min(present, most[offset == 0 ? 0 : 1])));
    if (into.empty()) return true;
    return bool(device.read(std::as_writable_bytes(std::span(into)), offset));
  }

  std::string head_;
  std::string tail_;
};

/* Also behind white space and a byte order mark, and in capitals. */
bool is_html(std::string_view head) {
  std::string text;
  for (const char c : head.substr(0, 256)) text += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::string_view rest = text;
  if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
  return rest.starts_with("<!doctype html") || rest.starts_with("<html") || rest.starts_with("<?xml");
}

/* A fixed VHD is a raw disk with a footer. */
bool has_vhd_footer(BlockDevice& device) {
  std::array<std::byte, 8> bytes;
  if (device.size() < 1024 || !device.read(bytes, (device.size() - 512) & ~uint64_t{511})) return false;
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == "conectix";
}

} // namespace

Foreign find_foreign(BlockDevice& device) {
  if (device.size() == 0) return {"an empty file", "is its download complete?"};
  const Places places(device);
  for (const Signature& s : signatures) {
    if (places.has(s.offset, s.bytes)) return {std::string(s.name), std::string(s.way_out)};
  }
  if (is_html(places.head())) return {"a web page", "is the URL right?"};
  if (has_vhd_footer(device)) return {"a VHD image", std::string(convert)};
  return {};
}

} // namespace qluks
