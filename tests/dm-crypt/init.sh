#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-3-Clause
# Process 1 of the virtual machine of dm-crypt-vm.sh.  Makes each volume of /cases by cryptsetup and dm-crypt, writes
# /pattern through it, and stores it at its place on /dev/vda.  One line for each case goes to the console.
#
# A case:  NUMBER  OFFSET (on /dev/vda, MiB)  SIZE (MiB)  SKIP (of the payload before the pattern, KiB)  OPTIONS (of
# luksFormat, which put the payload behind 2 MiB)
export PATH=/bin:/sbin:/usr/bin:/usr/sbin DM_DISABLE_UDEV=1
/bin/busybox --install -s /bin
mkdir -p /sbin
ln -sf /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=90% tmpfs /tmp
for module in virtio_pci virtio_blk loop dm_mod dm_crypt; do modprobe $module; done

# What was written becomes $error.
try() { error=$("$@" 2>&1 </dev/null); }

make_volume() {
    skip=$1
    shift
    try cryptsetup luksFormat -q --key-file /secret "$@" /tmp/volume || return
    try cryptsetup open --key-file /secret /tmp/volume payload || return
    try dd if=/pattern of=/dev/mapper/payload bs=1024 seek="$skip" conv=notrunc
    written=$?
    try cryptsetup close payload && return $written
}

# The header, and what follows from where the pattern starts.
store() {
    offset=$1 skip=$2
    dd if=/tmp/volume of=/dev/vda bs=1M seek="$offset" count=2 conv=notrunc &&
        dd if=/tmp/volume of=/dev/vda bs=1024 skip=$((2048 + skip)) seek=$(((offset + 2) * 1024)) count=2048 conv=notrunc
}

echo "qluks: kernel $(uname -r), $(cryptsetup --version)" >/dev/console
while read -r number offset size skip options; do
    truncate -s "${size}M" /tmp/volume
    # shellcheck disable=SC2086 # options are words
    if make_volume "$skip" $options; then
        try store "$offset" "$skip" && result=written || result="not stored $error"
    else
        result="refused $(echo "$error" | head -n 1)"
    fi
    rm -f /tmp/volume
    echo "qluks: case $number $result" >/dev/console
done </cases
sync
echo "qluks: done" >/dev/console
poweroff -f
