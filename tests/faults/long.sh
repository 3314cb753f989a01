#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The fault tests with as many seeds and points as they have.
set -eu

if [ -x ./faults_test ]; then
    QLUKS_SEEDS=100000 ./faults_test --gtest_filter='LyingStorage.*:Qcow2WriteChangingStorage.*' --gtest_brief=1
else
    echo 'without lying_storage_test: it needs GoogleTest'
fi
QLUKS_LONG=yes /usr/bin/python3 "$srcdir/tests/faults/nbdkit_test.py"
QLUKS_KILLS=75 /usr/bin/python3 "$srcdir/tests/faults/kill_test.py"
