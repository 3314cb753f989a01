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

forbid base    '(crypto|formats|plugin)/' 'base/ includes only itself'
forbid crypto  '(formats|plugin)/'        'crypto/ includes only base/ and itself'
forbid formats 'plugin/'                  'formats/ includes only crypto/, base/ and itself'
for folder in base crypto formats; do
    forbid $folder 'nbdkit-'              'nbdkit is known to plugin/ only'
done
for folder in base formats plugin; do
    forbid $folder 'nettle/|argon2|gcrypt' 'nettle, Argon2 and libgcrypt are known to crypto/ only'
done
for folder in base formats plugin crypto; do
    forbid $folder '(immintrin|wmmintrin|x86intrin|cpuid)\.h' 'intrinsics are for the kernels only' \
        '^crypto/([a-z0-9_]+_(aesni|vaes[0-9]*|shani|x86)|cpu|isa)\.(cpp|hpp):'
done
exit $bad
