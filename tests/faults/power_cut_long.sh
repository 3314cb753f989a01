#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The power cuts of power_cut_test.py with longer workloads and many more of them.
exec env QLUKS_POWER_CUT=all /usr/bin/python3 "${srcdir:-.}/tests/faults/power_cut_test.py"
