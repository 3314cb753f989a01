#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The unit tests as AArch64 runs them, on any machine: built by the cross compiler against Debian's arm64 libraries, and run
# under qemu's emulation of a program.  Right, then; how fast says only such a machine.
#
#   tests/aarch64.sh [DIRECTORY]     DIRECTORY: keeps libraries and build, to be used again
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
for program in aarch64-linux-gnu-g++ qemu-aarch64 apt-get dpkg; do
    command -v $program >/dev/null || { echo "SKIP: $program is not installed (Debian: g++-aarch64-linux-gnu, qemu-user)"; exit 77; }
done
dir=${1:-}
if [ -z "$dir" ]; then
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
fi
mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
triplet=aarch64-linux-gnu
root=$dir/root
tests="base_test crypto_test luks_test partition_test qcow2_test"

# Packages of another architecture, unpacked and not installed: this machine stays as it is.
fetch_libraries() {
    mkdir -p "$dir"/{lists,cache/archives}/partial "$root"
    touch "$dir/status"
    local apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::lists=$dir/lists"
        -o "Dir::State::status=$dir/status" -o "Dir::Cache=$dir/cache" -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" -y --no-install-recommends --download-only install nettle-dev zlib1g-dev libzstd-dev libdeflate-dev \
        libexpected-dev nlohmann-json3-dev libnbd-dev nbdkit-plugin-dev libgcrypt20-dev libgtest-dev libargon2-1 libstdc++6 libc6-dev
    for package in "$dir"/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
    # Linker scripts with absolute paths: the cross compiler has its own C library.
    rm -f "$root/usr/lib/$triplet"/lib{c,m,pthread,dl}.{so,a}
}

build() {
    [ -x "$source/configure" ] || (cd "$source" && autoreconf -fi)
    mkdir -p "$dir/build"
    cd "$dir/build"
    export PKG_CONFIG_LIBDIR=$root/usr/lib/$triplet/pkgconfig:$root/usr/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
    [ -e config.status ] || "$source/configure" --host=$triplet CXX=$triplet-g++ \
        CPPFLAGS="-idirafter $root/usr/include -idirafter $root/usr/include/$triplet" \
        LDFLAGS="-L$root/usr/lib/$triplet -Wl,-rpath-link,$root/usr/lib/$triplet -Wl,--allow-shlib-undefined"
    make -j"$(nproc)" $tests
}

[ -e "$root/usr/lib/$triplet/libnettle.so" ] || fetch_libraries >"$dir/log" 2>&1 || { tail -n 20 "$dir/log"; exit 1; }
build >"$dir/log" 2>&1 || { tail -n 40 "$dir/log"; exit 1; }
run() { qemu-aarch64 -L "$root" "./$1" --gtest_brief=1 "${@:2}"; }
run crypto_test --gtest_list_tests | grep -q /armv8 || { echo "the kernel is not there"; exit 1; }
# What the emulation does not do: limits of memory, locked memory and what a child does not inherit of it, openat2.
not_here=-Argon2.MoreMemoryThanThereIsIsAnError:SecureBuffer.IsLockedAndNotDumped
not_here+=:SecureBuffer.ChildrenOfTheServingProcessFindZeroes:FileDeviceTest.NothingOutsideOfTheDirectoryIsOpened
failed=0
for test in $tests; do
    run "$test" --gtest_filter="$not_here" || failed=1
done
exit $failed
