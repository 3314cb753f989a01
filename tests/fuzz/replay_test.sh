#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every fuzz target, on the inputs that fuzzing starts from and on what fuzzing has found.
set -eu
here=$(cd "${srcdir:-.}/tests/fuzz" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

./fuzz_seeds "$dir"
for seeds in "$dir"/*; do
    target=$(basename "$seeds")
    inputs=("$seeds")
    [ ! -d "$here/regressions/$target" ] || inputs+=("$here/regressions/$target")
    printf '%s: ' "$target"
    "./$target" "${inputs[@]}"
done
