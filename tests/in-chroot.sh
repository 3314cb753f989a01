#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Run the whole check on a fresh Debian of another release, and so under its nbdkit, QEMU and cryptsetup, and with the filter
# as its package installs it:
#
#   tests/in-chroot.sh SUITE [DIRECTORY]     SUITE: bookworm, trixie, sid, …
#
# As root, with debootstrap.  What is committed is tested.  A directory that is given is kept and used again.
set -euo pipefail
suite=${1:?usage: tests/in-chroot.sh SUITE [DIRECTORY]}
root=${2:-}
cd "$(dirname "$0")/.."
. tests/support/chroot.sh
mounted=()
cleanup() {
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}"; done
    [ -n "${2:-$root_given}" ] || rm -rf --one-file-system "$root"
}
root_given=$root
[ -n "$root" ] || root=$(mktemp -d)
trap cleanup EXIT

if [ ! -x "$root/usr/bin/apt-get" ]; then debootstrap --variant=minbase "$suite" "$root"; fi
for fs in proc dev dev/pts; do
    mountpoint -q "$root/$fs" && continue
    case $fs in
        proc) mount -t proc proc "$root/proc" ;;
        *) mount --bind "/$fs" "$root/$fs" ;;
    esac
    mounted+=("$root/$fs")
done
copy_way_to_archive "$root"
rm -rf "$root/qluks"
mkdir "$root/qluks"
git archive HEAD | tar -x -C "$root/qluks"
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 ${CXXFLAGS:+"CXXFLAGS=$CXXFLAGS"} \
    bash -c 'cd /qluks && ./bootstrap demo && ./bootstrap package && apt-get install -y -qq ./build/package/*.deb &&
        cd / && nbdkit --filter=qluks null --version && nbdkit --version && cd /qluks &&
        QLUKS_INSTALLED_FILTER=$(echo /usr/lib/*/nbdkit/filters/nbdkit-qluks-filter.so) ./bootstrap check'
