# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libformats.la
libformats_la_SOURCES = \
	formats/encrypted_write.cpp \
	formats/encrypted_write.hpp \
	formats/format.hpp \
	formats/luks/af.cpp \
	formats/luks/af.hpp \
	formats/luks/header.cpp \
	formats/luks/header.hpp \
	formats/luks/kdf.cpp \
	formats/luks/kdf.hpp \
	formats/luks/keyring.cpp \
	formats/luks/keyring.hpp \
	formats/luks/keyslot.cpp \
	formats/luks/keyslot.hpp \
	formats/luks/layer.cpp \
	formats/luks/layer.hpp \
	formats/luks/luks1.cpp \
	formats/luks/luks1.hpp \
	formats/luks/luks1_ondisk.hpp \
	formats/luks/luks2.cpp \
	formats/luks/luks2.hpp \
	formats/luks/luks2_binary.cpp \
	formats/luks/luks2_binary.hpp \
	formats/luks/luks2_json.cpp \
	formats/luks/luks2_json.hpp \
	formats/luks/luks2_metadata.cpp \
	formats/luks/luks2_metadata.hpp \
	formats/luks/luks2_ondisk.hpp \
	formats/luks/text.cpp \
	formats/luks/text.hpp \
	formats/qcow2/cache.cpp \
	formats/qcow2/cache.hpp \
	formats/qcow2/compressed.cpp \
	formats/qcow2/compressed.hpp \
	formats/qcow2/crypt.cpp \
	formats/qcow2/crypt.hpp \
	formats/qcow2/entry.cpp \
	formats/qcow2/entry.hpp \
	formats/qcow2/header.cpp \
	formats/qcow2/header.hpp \
	formats/qcow2/image.hpp \
	formats/qcow2/layer.cpp \
	formats/qcow2/layer.hpp \
	formats/qcow2/map.cpp \
	formats/qcow2/map.hpp \
	formats/qcow2/ondisk.hpp \
	formats/qcow2/open.cpp \
	formats/qcow2/slice.hpp \
	formats/qcow2/snapshot.cpp \
	formats/qcow2/snapshot.hpp \
	formats/text.cpp \
	formats/text.hpp \
	$(END)
libformats_la_LIBADD = $(DEFLATE_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
