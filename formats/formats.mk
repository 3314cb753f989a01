# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libformats.la
libformats_la_SOURCES = \
	formats/format.hpp \
	formats/keyring.hpp \
	formats/luks_header.hpp \
	formats/luks_layer.hpp \
	formats/qcow2_layer.hpp \
	$(END)
