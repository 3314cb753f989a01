#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The container of doc/recipes/container.md: built without network from the package, and a server in it under the
# restrictions that the page names.
#
#   tests/container.sh [BASE]     BASE: a root directory of this release, else debootstrap makes one
#
# As root, with debootstrap and buildah.  The server is started with the tools of util-linux and not by a container runtime:
# those need rights that a machine in a container does not have.
set -euo pipefail
given=${1:-}
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/tests/support/chroot.sh"
for program in buildah debootstrap setpriv nbdcopy qemu-img; do
    command -v $program >/dev/null || { echo "SKIP: $program is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }

dir=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$dir/storage" --runroot "$dir/run" "$@"; }
group=
cleanup() {
    [ ! -e "$dir/pid" ] || kill -9 "$(cat "$dir/pid")" 2>/dev/null || true
    [ -z "$group" ] || rmdir "$group" || true
    umount -q "$dir/base/proc" || true
    buildah umount --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$dir"
}
trap cleanup EXIT

echo "== a base image of $(. /etc/os-release && echo "$VERSION_CODENAME")"
if [ -n "$given" ]; then cp -a "$given" "$dir/base"; else
    debootstrap --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$dir/base" >"$dir/log"
fi
scratch=$(buildah from scratch)
buildah add -q "$scratch" "$dir/base" / >/dev/null
buildah commit -q "$scratch" qluks-base >/dev/null

echo "== the package, and what it needs"
(cd "$source" && ./bootstrap package >"$dir/log") || { cat "$dir/log"; exit 1; }
mkdir -p "$dir/context/packages"
cp "$source"/build/package/nbdkit-filter-qluks_*.deb "$dir/context/packages"
copy_way_to_archive "$dir/base"
mkdir "$dir/base/packages"
cp "$dir"/context/packages/*.deb "$dir/base/packages"
mount -t proc proc "$dir/base/proc"
chroot "$dir/base" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -c 'apt-get update -qq && mkdir -p /packages/partial &&
    apt-get -y -qq --no-install-recommends --download-only -o Dir::Cache::archives=/packages install /packages/*.deb' >"$dir/log"
umount "$dir/base/proc"
cp "$dir"/base/packages/*.deb "$dir/context/packages"

echo "== the image, without network"
(cd "$dir/context" && buildah bud -q --network none --build-arg BASE=localhost/qluks-base -t qluks \
    -f "$source/doc/container/Containerfile" . >"$dir/log" 2>&1) || { cat "$dir/log"; exit 1; }
user=$(buildah inspect --format '{{.OCIv1.Config.User}}' qluks)
read -r -a entry <<<"$(buildah inspect --format '{{range .OCIv1.Config.Entrypoint}}{{.}} {{end}}' qluks)"
root=$(buildah mount "$(buildah from qluks)")

echo "== a server in it: user $user, no capability, read-only, 64 KiB of locked memory, 256 MiB of memory"
mkdir "$dir/data" "$dir/data/socket"
printf secret >"$dir/data/pass.txt"
head -c 33554432 /dev/urandom >"$dir/disk.raw"
until qemu-img convert -f raw -O qcow2 --object "secret,id=s,file=$dir/data/pass.txt" \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100 "$dir/disk.raw" "$dir/data/disk.qcow2" 2>"$dir/log"; do
    grep -q 'accurate CPU usage' "$dir/log" || { cat "$dir/log"; exit 1; }
done
chown "$user" "$dir/data/socket"
chmod 755 "$dir" "$dir/data"
for parent in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    [ -z "$group" ] && mkdir "$parent/qluks-$$" 2>/dev/null && group=$parent/qluks-$$
done
for limit in memory.limit_in_bytes memory.max; do
    [ ! -e "$group/$limit" ] || { echo 268435456 >"$group/$limit" && echo "limited by $limit"; }
done
cat >"$dir/start" <<'END'
set -e
dir=$1 root=$2 user=$3
shift 3
mkdir -p "$root/data"
mount --bind "$root" "$root"
mount --bind "$dir/data" "$root/data"
mount -o remount,ro,bind "$root"
ulimit -l 64
exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    "$@"
END
(
    echo $BASHPID >"$dir/pid"
    [ -z "$group" ] || echo $BASHPID >"$group/cgroup.procs"
    exec unshare --mount --net --ipc --uts bash "$dir/start" "$dir" "$root" "$user" "${entry[@]}" \
        -r -U /data/socket/sock file /data/disk.qcow2 qluks-passphrase=+/data/pass.txt
) >"$dir/server.log" 2>&1 &
for _ in $(seq 300); do [ -S "$dir/data/socket/sock" ] && break || sleep 0.1; done
nbdcopy "nbd+unix:///?socket=$dir/data/socket/sock" "$dir/copy.raw" || { cat "$dir/server.log"; exit 1; }
cmp "$dir/disk.raw" "$dir/copy.raw"

status=/proc/$(cat "$dir/pid")/status
expect() { grep -qE "$1" "$status" || { echo "not so: $1"; cat "$status" "$dir/server.log"; exit 1; }; }
expect '^Uid:	65534	65534	65534	65534$'
expect '^CapEff:	0000000000000000$'
expect '^CapBnd:	0000000000000000$'
expect '^NoNewPrivs:	1$'
expect '^VmLck:	 *(4|8|12|16|20|24|28|32|36|40|44|48|52|56|60|64) kB$'
grep -q ' / .* ro,' "/proc/$(cat "$dir/pid")/mountinfo"
# What a key slot holds does not fit while it is unlocked, which one line says; the keys in use do.
[ "$(grep -c RLIMIT_MEMLOCK "$dir/server.log")" = 1 ] || { cat "$dir/server.log"; exit 1; }
echo "the same bytes; $(grep -E '^VmHWM|^VmLck' "$status" | tr -s '\t\n' ' ')"
