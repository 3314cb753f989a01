# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libsectorcrypto.la
libsectorcrypto_la_SOURCES = \
	crypto/cipher_spec.hpp \
	crypto/engine.hpp \
	crypto/hash.hpp \
	crypto/pbkdf.hpp \
	crypto/sector_cipher.hpp \
	$(END)
libsectorcrypto_la_LIBADD = $(NETTLE_LIBS) $(ARGON2_LIBS)
