#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A virtual machine lives on an encrypted qcow2 that our server exports writable, and its power goes.
#
#   guest-vm.sh [DIRECTORY]
#
# DIRECTORY (dm-crypt-vm) keeps the kernel that is downloaded.  tests/guest/init.sh is what the machine does,
# tests/guest/guest_vm.py what is done to it.  It takes some minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")/guest" && pwd)
dir=$(mkdir -p "${1:-dm-crypt-vm}" && cd "${1:-dm-crypt-vm}" && pwd)
# shellcheck source=tests/support/vm.sh
. "$here/../support/vm.sh"
PATH=$PATH:/sbin:/usr/sbin
need nbdkit qemu-img mke2fs e2fsck
fetch_kernel
start_root "$here/init.sh"
add_programs "$(command -v mke2fs)" "$(command -v e2fsck)"
add_modules '*/virtio/*.ko' '*/block/virtio_blk.ko' '*/fs/ext4/*.ko' '*/fs/jbd2/*.ko' '*/fs/mbcache.ko' \
    '*/crypto/crc32c*.ko' '*/lib/crc*.ko' '*/lib/libcrc32c.ko'
pack_initramfs
exec /usr/bin/python3 "$here/guest_vm.py" "$dir" "$kernel"
