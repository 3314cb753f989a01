#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every malformed image, written to.
exec env QLUKS_LONG=yes /usr/bin/python3 "${srcdir:-.}/tests/conformance/qcow2_malformed_write_test.py"
