# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# For tests that need a virtual machine: Debian's kernel and an initramfs of busybox and programs of this host, under
# qemu-system-x86_64 without KVM.  No root is needed.  Sourced with $dir set, which keeps the kernel that is downloaded.

cannot_run() {
    echo "SKIP: $*"
    exit 77
}

# need PROGRAM...
need() {
    local program
    [ "$(uname -m)" = x86_64 ] || cannot_run "the virtual machine is x86_64, this host is $(uname -m)"
    for program in qemu-system-x86_64 cpio apt-get dpkg-deb ldd "$@"; do
        command -v "$program" >/dev/null ||
            cannot_run "$program is not installed (Debian: apt-get install qemu-system-x86 cpio)"
    done
}

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

# Sets $kernel_package, $kernel and $busybox.
fetch_kernel() {
    kernel_package=$(apt-cache depends linux-image-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$kernel_package" ] || cannot_run "apt knows no linux-image-amd64"
    fetch "$kernel_package"
    fetch busybox-static
    kernel=$(echo "$dir/$kernel_package"/boot/vmlinuz-*)
    busybox=$(find "$dir/busybox-static" -path "*bin/busybox" -type f | head -n 1)
}

# start_root INIT: $dir/root with busybox, and that file as process 1.
start_root() {
    root=$dir/root
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,lib/modules}
    cp "$busybox" "$root/bin/busybox"
    cp "$1" "$root/init"
    chmod +x "$root/init"
}

# add_programs FILE...: with their libraries, under the paths that they have here.
add_programs() {
    local file
    for file in "$@"; do
        [ -e "$file" ] || continue
        printf '%s\n' "$file"
        ldd "$file" | grep -o '/[^ ]*'
    done | sort -u | while read -r file; do install -D "$file" "$root$file"; done
}

# add_modules PATTERN...: those of the kernel whose path matches.
add_modules() {
    local version=${kernel##*/vmlinuz-} pattern modules
    modules=lib/modules/$version
    "$busybox" depmod -b "$dir/$kernel_package" "$version"
    mkdir -p "$root/$modules"
    cp "$dir/$kernel_package/$modules"/modules.{dep,alias,symbols,builtin,order} "$root/$modules/" 2>/dev/null || true
    for pattern in "$@"; do
        (cd "$dir/$kernel_package" && find "$modules" -path "$pattern" | cpio -pdum --quiet "$root")
    done
}

pack_initramfs() {
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initramfs"
}
