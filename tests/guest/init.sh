#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-3-Clause
# Process 1 of the virtual machine of guest-vm.sh, first in an initramfs, then from the disk that it has installed itself
# on.  The kernel's command line says what is to be done:
#
#      step=install   make a file system on /dev/vda, and become a small system on it
#      step=write     start that system; it writes numbered files, and says of each when it is stable, without an end
#      step=check     is every file there that was said to be stable, and does the file system hold together?
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
say() { echo "guest: $*" >/dev/console; }

# By their paths: this shell takes busybox's own programs of a name first.
installed() { command -v "/usr/sbin/$1" || command -v "/sbin/$1"; }

# The same bytes for the same number.
content() { yes "file $1 of the guest, line after line" | head -c $((4096 + $1 * 3001 % 70000)); }

# From the disk.
if [ -e /installed ]; then
    mount -t proc proc /proc 2>/dev/null
    say "started from the disk"
    i=0
    while :; do
        content $i >/files/$i.new && mv /files/$i.new /files/$i && sync && say "stable $i"
        [ $((i % 7)) != 6 ] || rm -f /files/$((i - 3))
        i=$((i + 1))
    done
fi

/bin/busybox --install -s /bin
mkdir -p /sbin /disk
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
step=$(sed -n 's/.*step=\([a-z]*\).*/\1/p' /proc/cmdline)
for module in virtio_pci virtio_blk crc32c_generic ext4; do modprobe $module; done

case $step in
install)
    "$(installed mke2fs)" -q -F -t ext4 /dev/vda >/dev/console 2>&1 && mount -t ext4 /dev/vda /disk || say "no file system"
    mkdir -p /disk/bin /disk/dev /disk/proc /disk/sys /disk/files
    cp /bin/busybox /disk/bin/ && chroot /disk /bin/busybox --install -s /bin
    cp /init /disk/init && touch /disk/installed
    umount /disk && sync && say "installed"
    ;;
write)
    mount -t ext4 /dev/vda /disk || say "no file system"
    mount -o move /dev /disk/dev
    exec switch_root /disk /init
    ;;
check)
    mount -t ext4 /dev/vda /disk || say "no file system"
    last=$(sed -n 's/.*last=\([0-9]*\).*/\1/p' /proc/cmdline)
    lost=0 i=0
    while [ $i -le "$last" ]; do
        # Of each seven one was removed, later.
        if [ $((i % 7)) != 3 ]; then content $i | cmp -s - /disk/files/$i || lost=$((lost + 1)); fi
        i=$((i + 1))
    done
    umount /disk
    "$(installed e2fsck)" -fn /dev/vda >/dev/console 2>&1 && say "file system is clean"
    say "lost $lost"
    ;;
esac
say "done"
poweroff -f
