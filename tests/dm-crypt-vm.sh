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

cannot_run() {
    echo "SKIP: $*"
    exit 77
}

[ "$(uname -m)" = x86_64 ] || cannot_run "the virtual machine is x86_64, this host is $(uname -m)"
for program in qemu-system-x86_64 cryptsetup nbdkit cpio apt-get dpkg-deb ldd; do
    command -v $program >/dev/null || cannot_run "$program is not installed (Debian: apt-get install qemu-system-x86 cpio)"
done

# fetch PACKAGE: download it and unpack it in $dir/PACKAGE, without installing it.
fetch() {
    local package=$1
    [ ! -d "$dir/$package" ] || return 0
    rm -rf "$dir/deb" && mkdir "$dir/deb"
    (cd "$dir/deb" && apt-get download -q "$package") >"$dir/download.log" 2>&1 ||
        cannot_run "apt-get cannot download $package: $(tail -n 1 "$dir/download.log")"
    dpkg-deb -x "$dir"/deb/*.deb "$dir/unpacking"
    mv "$dir/unpacking" "$dir/$package"
    rm -rf "$dir/deb"
}

kernel_package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
[ -n "$kernel_package" ] || cannot_run "apt knows no linux-image-amd64"
fetch "$kernel_package"
fetch busybox-static
kernel=$(echo "$dir/$kernel_package"/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}
busybox=$(find "$dir/busybox-static" -path "*bin/busybox" -type f | head -n 1)

make_initramfs() {
    local root=$dir/root
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,run/cryptsetup,tmp,lib/modules}
    cp "$busybox" "$root/bin/busybox"
    cp "$here/init.sh" "$root/init"
    chmod +x "$root/init"
    # cryptsetup with its libraries, and OpenSSL's provider of old hashes, under the paths that they have here.
    local file
    for file in "$(command -v cryptsetup)" /usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so \
        /lib/x86_64-linux-gnu/libgcc_s.so.1; do
        [ -e "$file" ] || continue
        printf '%s\n' "$file"
        ldd "$file" | grep -o '/[^ ]*'
    done | sort -u | while read -r file; do install -D "$file" "$root$file"; done
    cp "$dir/cases" "$dir/pattern" "$dir/secret" "$root/"

    "$busybox" depmod -b "$dir/$kernel_package" "$version"
    local modules=lib/modules/$version
    mkdir -p "$root/$modules"
    cp "$dir/$kernel_package/$modules"/modules.{dep,alias,symbols,builtin,order} "$root/$modules/" 2>/dev/null || true
    (cd "$dir/$kernel_package" && find "$modules" -path '*/crypto/*.ko' -o -path '*/virtio/*.ko' -o -path '*/block/loop.ko' \
        -o -path '*/block/virtio_blk.ko' -o -path '*/md/dm-*.ko' -o -path '*/drivers/dax/*.ko' \
        -o -path '*/lib/crc*.ko' -o -path '*/lib/lib*.ko' | cpio -pdum --quiet "$root")
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initramfs"
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
