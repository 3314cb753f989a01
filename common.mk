# SPDX-License-Identifier: BSD-3-Clause
# Flags that every object of the tree is built with.

AM_CPPFLAGS = -I$(top_srcdir) $(NETTLE_CFLAGS) $(ARGON2_CFLAGS) $(LIBGCRYPT_HASHES_CFLAGS) \
	$(DEFLATE_CFLAGS) $(ZLIB_CFLAGS) $(ZSTD_CFLAGS)
AM_CXXFLAGS = -fvisibility=hidden $(WARN_CXXFLAGS) $(SANITIZER_FLAGS)
AM_LDFLAGS = $(SANITIZER_FLAGS)
