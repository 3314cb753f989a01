# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libformats.la
libformats_la_SOURCES = \
	formats/format.hpp \
	formats/keyring.hpp \
	formats/luks_header.hpp \
	formats/luks_layer.hpp \
	formats/qcow2_cache.cpp \
	formats/qcow2_cache.hpp \
	formats/qcow2_crypt.cpp \
	formats/qcow2_crypt.hpp \
	formats/qcow2_entry.cpp \
	formats/qcow2_entry.hpp \
	formats/qcow2_header.cpp \
	formats/qcow2_header.hpp \
	formats/qcow2_layer.cpp \
	formats/qcow2_layer.hpp \
	formats/qcow2_map.cpp \
	formats/qcow2_map.hpp \
	formats/qcow2_ondisk.hpp \
	formats/text.hpp \
	$(END)
