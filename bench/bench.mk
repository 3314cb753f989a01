# SPDX-License-Identifier: BSD-3-Clause
# Built by "make bench", never by "make check": see bench/README.md.
EXTRA_DIST += bench/README.md bench/bench_extents.py bench/bench_scaling.py bench/bench_servers.py \
	bench/bench_tenants.py bench/bench_writing.py bench/inflate_alone.py bench/plot.py \
	bench/results/amd-zen5-ciphers.md bench/results/amd-zen5-reading.txt bench/results/amd-zen5-writing.txt
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
bench_crypto_CPPFLAGS = $(AM_CPPFLAGS) $(BENCHMARK_CFLAGS) $(RIVALS_CPPFLAGS) $(ARGON2_CFLAGS)
bench_crypto_LDADD = libsectorcrypto.la libbase.la $(BENCHMARK_LIBS) $(RIVALS_LIBS) $(NETTLE_LIBS) $(ARGON2_LIBS)

bench: bench_crypto
else
bench:
	@echo 'Google Benchmark is missing: install libbenchmark-dev (Debian) or google-benchmark-devel (Fedora)'; exit 1
endif

# Options for the script, such as "--size 256 --images luks1,zstd", go into BENCH_OPTIONS.
bench-servers: nbdkit-qluks-filter.la
	/usr/bin/python3 $(srcdir)/bench/bench_servers.py --filter .libs/nbdkit-qluks-filter.so $(BENCH_OPTIONS)

bench-extents: nbdkit-qluks-filter.la
	/usr/bin/python3 $(srcdir)/bench/bench_extents.py --filter .libs/nbdkit-qluks-filter.so $(BENCH_OPTIONS)
bench-scaling: nbdkit-qluks-filter.la
	/usr/bin/python3 $(srcdir)/bench/bench_scaling.py --filter .libs/nbdkit-qluks-filter.so $(BENCH_OPTIONS)
bench-tenants: nbdkit-qluks-filter.la
	/usr/bin/python3 $(srcdir)/bench/bench_tenants.py --filter .libs/nbdkit-qluks-filter.so $(BENCH_OPTIONS)
bench-writing: nbdkit-qluks-filter.la
	/usr/bin/python3 $(srcdir)/bench/bench_writing.py --filter .libs/nbdkit-qluks-filter.so $(BENCH_OPTIONS)
.PHONY: bench bench-extents bench-scaling bench-servers bench-tenants bench-writing
CLEANFILES += bench_crypto
