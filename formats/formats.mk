# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libformats.la
libformats_la_SOURCES = \
	formats/af.cpp \
	formats/af.hpp \
	formats/format.hpp \
	formats/keyring.cpp \
	formats/keyring.hpp \
	formats/keyslot.cpp \
	formats/keyslot.hpp \
	formats/luks1.cpp \
	formats/luks1.hpp \
	formats/luks1_ondisk.hpp \
	formats/luks2.cpp \
	formats/luks2.hpp \
	formats/luks2_binary.cpp \
	formats/luks2_binary.hpp \
	formats/luks2_json.cpp \
	formats/luks2_json.hpp \
	formats/luks2_metadata.cpp \
	formats/luks2_metadata.hpp \
	formats/luks2_ondisk.hpp \
	formats/luks_header.cpp \
	formats/luks_header.hpp \
	formats/luks_kdf.cpp \
	formats/luks_kdf.hpp \
	formats/luks_layer.cpp \
	formats/luks_layer.hpp \
	formats/luks_text.cpp \
	formats/luks_text.hpp \
	formats/qcow2_cache.cpp \
	formats/qcow2_cache.hpp \
	formats/qcow2_compressed.cpp \
	formats/qcow2_compressed.hpp \
	formats/qcow2_crypt.cpp \
	formats/qcow2_crypt.hpp \
	formats/qcow2_entry.cpp \
	formats/qcow2_entry.hpp \
	formats/qcow2_header.cpp \
	formats/qcow2_header.hpp \
	formats/qcow2_image.hpp \
	formats/qcow2_layer.cpp \
	formats/qcow2_layer.hpp \
	formats/qcow2_map.cpp \
	formats/qcow2_map.hpp \
	formats/qcow2_ondisk.hpp \
	formats/qcow2_open.cpp \
	formats/qcow2_snapshot.cpp \
	formats/qcow2_snapshot.hpp \
	formats/text.cpp \
	formats/text.hpp \
	$(END)
libformats_la_LIBADD = $(DEFLATE_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
