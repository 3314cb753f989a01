# SPDX-License-Identifier: BSD-3-Clause
# Built by "make bench", never by "make check": see bench/README.md.
EXTRA_DIST += bench/README.md
if HAVE_BENCHMARK
EXTRA_PROGRAMS += bench_crypto
bench_crypto_SOURCES = \
	bench/bench_crypto.cpp \
	bench/limits.cpp \
	bench/limits.hpp \
	bench/rivals.cpp \
	bench/rivals.hpp \
	bench/table.cpp \
	bench/table.hpp \
	$(END)
bench_crypto_CPPFLAGS = $(AM_CPPFLAGS) $(BENCHMARK_CFLAGS) $(RIVALS_CPPFLAGS)
bench_crypto_LDADD = libsectorcrypto.la libbase.la $(BENCHMARK_LIBS) $(RIVALS_LIBS) $(NETTLE_LIBS) $(ARGON2_LIBS)

bench: bench_crypto
else
bench:
	@echo 'Google Benchmark is missing: install libbenchmark-dev (Debian) or google-benchmark-devel (Fedora)'; exit 1
endif
.PHONY: bench
CLEANFILES += bench_crypto
