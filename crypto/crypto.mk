# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libsectorcrypto.la
libsectorcrypto_la_SOURCES = \
	crypto/adiantum.cpp \
	crypto/adiantum.hpp \
	crypto/aes/cbc_nettle.cpp \
	crypto/aes/engine.cpp \
	crypto/aes/engine.hpp \
	crypto/aes/kernel.hpp \
	crypto/aes/kernel_nettle.hpp \
	crypto/aes/key_nettle.cpp \
	crypto/aes/self_test.cpp \
	crypto/aes/xts_nettle.cpp \
	crypto/aes/xts_run.hpp \
	crypto/block_key.cpp \
	crypto/block_key.hpp \
	crypto/cipher_spec.cpp \
	crypto/cipher_spec.hpp \
	crypto/cpu.cpp \
	crypto/cpu.hpp \
	crypto/iv.hpp \
	crypto/iv_rule.hpp \
	crypto/kdf/argon2.cpp \
	crypto/kdf/argon2_fill.cpp \
	crypto/kdf/argon2_fill.hpp \
	crypto/kdf/blake2b.cpp \
	crypto/kdf/blake2b.hpp \
	crypto/kdf/hash.cpp \
	crypto/kdf/hash.hpp \
	crypto/kdf/pbkdf.hpp \
	crypto/kdf/pbkdf2.cpp \
	crypto/little_endian.hpp \
	crypto/lrw_tweak.cpp \
	crypto/lrw_tweak.hpp \
	crypto/mode_cipher.cpp \
	crypto/mode_cipher.hpp \
	crypto/sector_cipher.cpp \
	crypto/sector_cipher.hpp \
	crypto/traces.cpp \
	crypto/traces.hpp \
	crypto/xchacha.cpp \
	crypto/xchacha.hpp \
	$(END)
libsectorcrypto_la_LIBADD = $(NETTLE_LIBS) $(LIBGCRYPT_HASHES_LIBS)
if HAVE_LIBGCRYPT_HASHES
libsectorcrypto_la_SOURCES += \
	crypto/kdf/hash_libgcrypt.cpp \
	crypto/kdf/hash_libgcrypt.hpp \
	$(END)
endif
aes_vector_bodies = \
	crypto/aes/vector_cbc.hpp \
	crypto/aes/vector_iv.hpp \
	crypto/aes/vector_key.hpp \
	crypto/aes/vector_tweak.hpp \
	crypto/aes/vector_tweak_pair.hpp \
	crypto/aes/vector_xts.hpp \
	crypto/aes/vector_xts_interleaved.hpp \
	crypto/aes/vector_xts_wide.hpp \
	crypto/isa.hpp \
	$(END)
if AARCH64
libsectorcrypto_la_SOURCES += $(aes_vector_bodies) \
	crypto/aes/kernel_armv8.cpp \
	crypto/aes/kernel_armv8.hpp \
	$(END)
endif
if X86_64
libsectorcrypto_la_SOURCES += $(aes_vector_bodies) \
	crypto/aes/kernel_aesni.cpp \
	crypto/aes/kernel_vaes256.cpp \
	crypto/aes/kernel_vaes512.cpp \
	crypto/aes/kernel_x86.hpp \
	crypto/kdf/argon2_fill_avx2.cpp \
	crypto/kdf/argon2_fill_avx512.cpp \
	crypto/kdf/argon2_fill_vector.hpp \
	crypto/kdf/pbkdf2_lanes_shani.hpp \
	crypto/kdf/pbkdf2_sha1_shani.cpp \
	crypto/kdf/pbkdf2_sha256_shani.cpp \
	crypto/kdf/pbkdf2_shani.hpp \
	$(END)
endif
