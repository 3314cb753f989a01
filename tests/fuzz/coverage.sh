#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# coverage.sh SRCDIR CORPUS PROGRAM...: how many lines of the parsers the unit tests and the fuzz targets reach.  Run in
# the folder of the build that "make coverage" makes; CORPUS has a folder of inputs for each target, and may be missing.
set -eu
srcdir=$1 corpus=$2
shift 2
tool() { "$FUZZ_CXX" -print-prog-name="$1"; }

parsers=(crypto/cipher_spec formats/luks/header formats/luks/luks1 formats/luks/luks2 formats/luks/luks2_binary
    formats/luks/luks2_json formats/luks/luks2_metadata formats/luks/text formats/partition/gpt
    formats/partition/layer formats/partition/mbr formats/partition/table formats/qcow2/compressed formats/qcow2/crypt
    formats/qcow2/entry formats/qcow2/header formats/qcow2/layer formats/qcow2/map formats/qcow2/open
    formats/qcow2/snapshot formats/text info/luks_report info/report plugin/backing_chain plugin/config plugin/layer_list
    plugin/luks_partitions plugin/opener)

./fuzz_seeds seeds
rm -rf profiles
mkdir profiles
objects=()
for program in "$@"; do
    inputs=()
    for folder in "seeds/$program" "$srcdir/tests/fuzz/regressions/$program" "$corpus/$program"; do
        [ ! -d "$folder" ] || inputs+=("$folder")
    done
    LLVM_PROFILE_FILE="profiles/$program" "./$program" "${inputs[@]}" >"profiles/$program.log" 2>&1 ||
        echo "$program failed: $(tail -n 1 "profiles/$program.log")" >&2
    rm "profiles/$program.log"
    objects+=(-object "$program")
done
objects=("${objects[@]:1}") # the first one is named without an option
"$(tool llvm-profdata)" merge -sparse profiles/* -o merged.profdata
"$(tool llvm-cov)" report -instr-profile merged.profdata "${objects[@]}" --show-region-summary=0 \
    --show-branch-summary=0 2>/dev/null | grep -E "^Filename|(^|/)($(IFS='|' && echo "${parsers[*]}"))\.cpp "
echo "the lines themselves: llvm-cov show, with merged.profdata in $PWD"
