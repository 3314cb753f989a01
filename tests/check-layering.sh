#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Data flows one way: plugin → formats → crypto → base.  Fails, naming the line, when an #include goes against it.
set -eu
cd "${srcdir:-.}"

bad=0
# forbid FOLDER PATTERN REASON [EXCEPTION]: no file of the folder may include what matches.
forbid() {
    local hits
    hits=$(grep -rnE "^ *#include [<\"]($2)" "$1" --include='*.cpp' --include='*.hpp' | grep -vE "${4:-^$}" || true)
    [ -z "$hits" ] || { echo "$3:"; echo "$hits"; bad=1; }
}

forbid base    '(crypto|formats|info|plugin)/' 'base/ includes only itself'
forbid crypto  '(formats|info|plugin)/'   'crypto/ includes only base/ and itself'
forbid formats '(info|plugin)/'           'formats/ includes only crypto/, base/ and itself'
forbid plugin  'info/'                    'plugin/ does not know info/'
forbid info    'plugin/'                  'info/ opens files and NBD servers by plugin/, and knows no more of it' 'plugin/(nbd_device|sources)\.hpp'
# Wings of a folder: the formats do not know each other.  One door: the LUKS header inside of a qcow2.
forbid formats/luks  'formats/(partition|qcow2)/' 'formats/luks/ does not know qcow2 nor partitions'
forbid formats/partition '(crypto/|formats/(luks|qcow2)/)' 'formats/partition/ knows neither LUKS nor qcow2 nor ciphers'
forbid formats/qcow2 'formats/partition/' 'formats/qcow2/ does not know partitions'
forbid formats/qcow2 'formats/luks/'      'formats/qcow2/ knows LUKS in crypt.hpp and crypt.cpp only' \
    '^formats/qcow2/crypt\.(cpp|hpp):'
forbid crypto/kdf    'crypto/aes/'        'crypto/kdf/ does not know the AES kernels'
forbid crypto/aes    'crypto/kdf/'        'crypto/aes/ does not know key derivation'
for folder in base crypto formats info; do
    forbid $folder 'nbdkit-'              'nbdkit is known to plugin/ only'
done
for folder in base formats info plugin; do
    forbid $folder 'nettle/|gcrypt' 'nettle and libgcrypt are known to crypto/ only'
done
for folder in base formats info plugin crypto; do
    forbid $folder '(immintrin|wmmintrin|x86intrin|cpuid)\.h' 'intrinsics are for the kernels only' \
        '^crypto/((aes|kdf)/[a-z0-9_]+_(aesni|avx2|avx512|vaes[0-9]*|shani|x86)|cpu|isa)\.(cpp|hpp):'
done
exit $bad
