#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What luks_test opens, cryptsetup and QEMU have to open too: we are never looser than they are.
set -eu

for program in cryptsetup qemu-io; do
    command -v "$program" >/dev/null || { echo "SKIP: $program is not installed"; exit 77; }
done

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
QLUKS_KEEP_IMAGES=$dir ./luks_test --gtest_filter='*Verdict*' --gtest_brief=1
printf secret >"$dir/secret"
truncate -s 1M "$dir/payload"

# Opened by cryptsetup and by us, not by QEMU: hash names in capitals, the tight layout of cryptsetup 1.0, and a slot
# beside the good one that is damaged.
not_for_qemu=' HashInCapitals.luks1 PackedSlotsOfOldCryptsetup.luks1 StateOfAnotherSlotUnknown.luks1'
not_for_qemu+=' AnotherActiveSlotWithoutIterations.luks1 '
# Opened by QEMU (which makes such headers), not by cryptsetup, which takes the offset for one beside the key material.
not_for_cryptsetup=' PayloadAt1Detached.luks1-header PayloadInKeyMaterialDetached.luks1-header '

asked=0 bad=0
# opens PROGRAM IMAGE COMMAND...: the command has to succeed.
opens() {
    asked=$((asked + 1))
    "${@:3}" >"$dir/said" 2>&1 && ! grep -qiE "error|can't open" "$dir/said" && return
    echo "$1 refuses $(basename "$2"): $(head -n 1 "$dir/said")"
    bad=1
}
cryptsetup_opens() {
    case $not_for_cryptsetup in *" $(basename "$1") "*) return ;; esac
    opens cryptsetup "$1" cryptsetup open --test-passphrase --key-file "$dir/secret" "${@:2}"
}
qemu_opens() {
    case $not_for_qemu in *" $(basename "$1") "*) return ;; esac
    opens qemu "$1" qemu-io -r --object "secret,id=s,file=$dir/secret" -c 'read 0 512' \
        --image-opts "driver=luks,key-secret=s,file.filename=$1"
}

for image in "$dir"/*.luks*; do
    case $image in
        *.luks1) cryptsetup_opens "$image" "$image"; qemu_opens "$image" ;;
        *.luks1-qcow2) qemu_opens "$image" ;;
        *.luks2) cryptsetup_opens "$image" "$image" ;;
        *-header) cryptsetup_opens "$image" --header "$image" "$dir/payload" ;;
    esac
done
echo "asked $asked times"
[ "$asked" -ge 35 ] || { echo 'luks_test has kept too few images'; bad=1; }
exit $bad
