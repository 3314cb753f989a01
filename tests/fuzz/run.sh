#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# run.sh SECONDS TARGET...: fuzzes each target for so long, two at a time.  Run in the folder of the build that "make fuzz"
# makes; what is found stays in findings/, and the inputs that reach new code in corpus/, where the next run goes on.
set -eu
seconds=$1
shift
here=$(cd "$(dirname "$0")" && pwd)

./fuzz_seeds seeds
mkdir -p findings logs

# What the formats are made of that a target reads.
dictionaries() {
    case $1 in
        fuzz_info) echo "$here"/fuzz_{luks1,luks2,partition,qcow2}.dict ;;
        *) echo "$here/${1%_write}"*.dict ;;
    esac
}

fuzz() {
    local inputs=("corpus/$1" "seeds/$1")
    [ ! -d "$here/regressions/$1" ] || inputs+=("$here/regressions/$1")
    mkdir -p "corpus/$1"
    cat $(dictionaries "$1") >"seeds/$1.dict"
    "./$1" -max_total_time="$seconds" -rss_limit_mb=256 -malloc_limit_mb=64 -timeout=2 -max_len=69632 \
        -print_final_stats=1 -dict="seeds/$1.dict" -artifact_prefix="findings/$1-" "${inputs[@]}" >"logs/$1" 2>&1
}

# The executions, and what was found if anything was.
report() {
    printf '%-18s %s executions' "$1" "$(sed -n 's/^stat::number_of_executed_units: *//p' "logs/$1")"
    sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "logs/$1" | tail -n 1 | sed 's/^/, edges: /' | tr -d '\n'
    if [ "$2" = 0 ]; then echo ", nothing found"; return; fi
    echo ", found:"
    grep -E 'ERROR|runtime error|does not hold|Test unit written' "logs/$1" | sed 's/^/    /'
}

failed=0
while [ $# -gt 0 ]; do
    two=("${@:1:2}")
    shift ${#two[@]}
    pids=()
    for target in "${two[@]}"; do
        fuzz "$target" &
        pids+=($!)
    done
    for i in "${!two[@]}"; do
        status=0
        wait "${pids[$i]}" || status=$?
        report "${two[$i]}" "$status"
        [ "$status" = 0 ] || failed=1
    done
done
exit $failed
