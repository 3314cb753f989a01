/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_seeds FOLDER: writes the inputs that fuzzing starts from, FOLDER/TARGET/NAME: images of every kind that is
 * served, and what goes with them.  Linked with kdf_stub.cpp, so that the volumes open there. */
#include "tests/fuzz/seeds.hpp"
#include "tests/support/streams.hpp"

namespace {

using namespace qluks;
using namespace qluks::fuzz;

void write_compressed() {
  const Content plain = test::compressible(4096);
  const auto seed = [](uint8_t type, uint8_t bits, const Content& stream) {
    Content bytes = {std::byte{type}, std::byte{bits}, std::byte{0}, std::byte{100}};
    append(bytes, text_of(std::string_view("\0\0\0\7\0\0\1\0", 8)));
    append(bytes, stream);
    return bytes;
  };
  write("fuzz_compressed", "deflate", seed(0, 3, test::deflated(plain)));
  write("fuzz_compressed", "deflate_longer", seed(0, 3, test::deflated(test::compressible(5000))));
  write("fuzz_compressed", "deflate_without_end", seed(0, 3, test::deflated(plain, Z_SYNC_FLUSH)));
  write("fuzz_compressed", "deflate_zeroes", seed(0, 7, test::deflated(Content(65536))));
  write("fuzz_compressed", "zstd", seed(1, 3, test::zstd_frame(plain)));
  write("fuzz_compressed", "zstd_checksum", seed(1, 3, test::zstd_frame(plain, 10, true)));
  write("fuzz_compressed", "zstd_zeroes", seed(1, 7, test::zstd_frame(Content(65536))));
  Content two = test::zstd_frame(Content(plain.begin(), plain.begin() + 1000));
  append(two, test::zstd_frame(Content(plain.begin() + 1000, plain.end())));
  write("fuzz_compressed", "zstd_two_frames", seed(1, 3, two));
}

void write_cipher_specs() {
  unsigned count = 0;
  for (const char* name : {"aes-xts-plain64",
                           "aes-cbc-essiv:sha256",
                           "aes-cbc-plain",
                           "serpent-xts-plain64be",
                           "twofish-cbc-eboiv",
                           "camellia-xts-benbi",
                           "cast5-cbc-plain64",
                           "xchacha20,aes-adiantum-plain64",
                           "aes-ctr-null",
                           "aes-ecb",
                           "aes",
                           "aes-plain",
                           "capi:xts(aes)-plain64",
                           "capi:essiv(cbc(aes),sha256)-plain64",
                           "cipher_null-ecb",
                           "serpent-cbc-essiv:whirlpool",
                           "blowfish-cbc-plain",
                           "des3_ede-pcbc-plain64",
                           "aes-lrw-benbi",
                           "twofish-cfb-plain",
                           "camellia-ofb-null",
                           "aes-xctr-plain64",
                           "xchacha12,aes-adiantum-benbi"}) {
    write("fuzz_cipher_spec", std::to_string(count++), text_of(name));
  }
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  set_folder(argv[1]);
  const auto images = test::stored_images();
  write_all_qcow2(images);
  write_all_for_writing(images);
  write_luks1();
  write_all_luks2();
  write_compressed();
  write_cipher_specs();
  write_all_parameters(images);
  write_partition_tables();
  return 0;
}
