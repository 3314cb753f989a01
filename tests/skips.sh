#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What tests have not done, and why, from the logs that they have left in this folder: a file, a test of it, the reason.
#
#   skips.sh TEST...
set -eu

for test; do
    log=$(sed -E 's/(\.py|\.sh)?$/.log/' <<<"$test")
    [ ! -e "$log" ] || awk -v file="$test" '
        /^SKIP: / { print "skipped: " file ": " substr($0, 7) }
        # unittest
        / \.\.\. skipped / { split($0, part, / \.\.\. skipped /); print "skipped: " file ": " part[1] ": " part[2] }
        # GoogleTest
        reason_follows { reason = $0; reason_follows = 0 }
        /: Skipped$/ { reason_follows = 1 }
        /^\[  SKIPPED \] .* \([0-9]+ ms\)$/ { print "skipped: " file ": " $4 ": " reason }
    ' "$log"
done
