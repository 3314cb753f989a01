# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libsectorcrypto.la
libsectorcrypto_la_SOURCES = \
	crypto/adiantum.cpp \
	crypto/adiantum.hpp \
	crypto/aes_key_nettle.cpp \
	crypto/argon2.cpp \
	crypto/block_key.cpp \
	crypto/block_key.hpp \
	crypto/cbc_nettle.cpp \
	crypto/cipher_spec.cpp \
	crypto/cipher_spec.hpp \
	crypto/cpu.cpp \
	crypto/cpu.hpp \
	crypto/engine.cpp \
	crypto/engine.hpp \
	crypto/hash.cpp \
	crypto/hash.hpp \
	crypto/iv.hpp \
	crypto/iv_rule.hpp \
	crypto/kernel.hpp \
	crypto/kernel_nettle.hpp \
	crypto/little_endian.hpp \
	crypto/lrw_tweak.cpp \
	crypto/lrw_tweak.hpp \
	crypto/mode_cipher.cpp \
	crypto/mode_cipher.hpp \
	crypto/pbkdf.hpp \
	crypto/pbkdf2.cpp \
	crypto/sector_cipher.cpp \
	crypto/sector_cipher.hpp \
	crypto/self_test.cpp \
	crypto/traces.cpp \
	crypto/traces.hpp \
	crypto/xchacha.cpp \
	crypto/xchacha.hpp \
	crypto/xts_nettle.cpp \
	crypto/xts_run.hpp \
	$(END)
libsectorcrypto_la_LIBADD = $(NETTLE_LIBS) $(ARGON2_LIBS) $(LIBGCRYPT_HASHES_LIBS)
if HAVE_LIBGCRYPT_HASHES
libsectorcrypto_la_SOURCES += \
	crypto/hash_libgcrypt.cpp \
	crypto/hash_libgcrypt.hpp \
	$(END)
endif
if X86_64
libsectorcrypto_la_SOURCES += \
	crypto/aes_key_aesni.cpp \
	crypto/isa.hpp \
	crypto/kernel_aesni.cpp \
	crypto/kernel_vaes256.cpp \
	crypto/kernel_vaes512.cpp \
	crypto/kernel_x86.hpp \
	crypto/pbkdf2_shani.cpp \
	crypto/pbkdf2_shani.hpp \
	crypto/vector_cbc.hpp \
	crypto/vector_iv.hpp \
	crypto/vector_tweak.hpp \
	crypto/vector_xts.hpp \
	crypto/vector_xts_interleaved.hpp \
	$(END)
endif
