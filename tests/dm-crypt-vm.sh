#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Compares what the filter serves with what the kernel's dm-crypt wrote.
#
#   dm-crypt-vm.sh [DIRECTORY [GROUP...]]
#
# DIRECTORY (dm-crypt-vm) keeps the kernel that is downloaded.
#
# The volumes are made in a small virtual machine: Debian's kernel, and an initramfs of busybox and this host's
# cryptsetup, under qemu-system-x86_64 without KVM.  No root is needed.  It takes minutes.
# tests/dm-crypt/cases.py lists the volumes and compares; tests/dm-crypt/init.sh makes them.
set -euo pipefail
here=$(cd "$(dirname "$0")/dm-crypt" && pwd)
dir=$(mkdir -p "${1:-dm-crypt-vm}" && cd "${1:-dm-crypt-vm}" && pwd)
python=/usr/bin/python3

# shellcheck source=tests/support/vm.sh
. "$here/../support/vm.sh"
need cryptsetup nbdkit
fetch_kernel

make_initramfs() {
    start_root "$here/init.sh"
    mkdir -p "$root/run/cryptsetup"
    # And OpenSSL's provider of old hashes.
    add_programs "$(command -v cryptsetup)" /usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so \
        /lib/x86_64-linux-gnu/libgcc_s.so.1
    cp "$dir/cases" "$dir/pattern" "$dir/secret" "$root/"
    add_modules '*/crypto/*.ko' '*/virtio/*.ko' '*/block/loop.ko' '*/block/virtio_blk.ko' '*/md/dm-*.ko' \
        '*/drivers/dax/*.ko' '*/lib/crc*.ko' '*/lib/lib*.ko'
    pack_initramfs
}

boot() {
    rm -f "$dir/volumes"
    truncate -s "$1" "$dir/volumes"
    timeout 3600 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nodefaults -nographic -no-reboot \
        -kernel "$kernel" -initrd "$dir/initramfs" -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" \
        -serial "file:$dir/console" -drive "file=$dir/volumes,format=raw,if=virtio,cache=unsafe" >"$dir/qemu.log" 2>&1 &
    vm=$!
    trap 'kill $vm 2>/dev/null || true' EXIT
    wait $vm || {
        cat "$dir/qemu.log"
        tail -n 20 "$dir/console"
        echo "the virtual machine failed"
        exit 1
    }
}

"$python" "$here/cases.py" write "$dir" "${@:2}"
make_initramfs
boot "$(cat "$dir/size")"
"$python" "$here/cases.py" compare "$dir" "${@:2}"
