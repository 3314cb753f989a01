# SPDX-License-Identifier: BSD-3-Clause
# Each target is linked with libFuzzer in the build that "make fuzz" makes, else with a main() that replays files.
fuzz_targets = \
	fuzz_cipher_spec \
	fuzz_compressed \
	fuzz_info \
	fuzz_luks1 \
	fuzz_luks2 \
	fuzz_luks_write \
	fuzz_parameters \
	fuzz_partition \
	fuzz_qcow2 \
	fuzz_qcow2_write \
	$(END)
check_PROGRAMS += $(fuzz_targets) fuzz_seeds

fuzz_entry = tests/fuzz/checks.hpp tests/fuzz/entry.cpp tests/fuzz/target.hpp
fuzz_image = $(fuzz_entry) \
	tests/fuzz/fuzz_case.hpp \
	tests/fuzz/guest_disk.cpp \
	tests/fuzz/guest_disk.hpp \
	tests/fuzz/kdf_stub.cpp \
	tests/fuzz/keyrings.hpp \
	tests/fuzz/sparse_device.hpp \
	tests/support/guarded.hpp \
	$(END)
fuzz_libs = libformats.la libsectorcrypto.la libbase.la
if FUZZING
fuzz_ldflags = $(AM_LDFLAGS) -fsanitize=fuzzer
fuzz_qcow2_mutator = tests/fuzz/fuzz_qcow2_mutator.cpp
else
fuzz_qcow2_mutator =
fuzz_ldflags = $(AM_LDFLAGS)
fuzz_entry += tests/fuzz/replay.cpp
endif

fuzz_cipher_spec_SOURCES = tests/fuzz/fuzz_cipher_spec.cpp $(fuzz_entry)
fuzz_cipher_spec_LDADD = $(fuzz_libs)
fuzz_cipher_spec_LDFLAGS = $(fuzz_ldflags)

fuzz_compressed_SOURCES = tests/fuzz/fuzz_compressed.cpp tests/fuzz/fuzz_case.hpp tests/fuzz/sparse_device.hpp \
	tests/support/guarded.hpp $(fuzz_entry)
fuzz_compressed_LDADD = $(fuzz_libs) $(ZLIB_LIBS)
fuzz_compressed_LDFLAGS = $(fuzz_ldflags)

fuzz_info_SOURCES = \
	tests/fuzz/fuzz_info.cpp \
	tests/fuzz/fuzz_case.hpp \
	tests/fuzz/kdf_stub.cpp \
	tests/fuzz/sparse_device.hpp \
	$(info_report_sources) \
	$(fuzz_qcow2_mutator) \
	$(fuzz_entry) \
	$(END)
fuzz_info_LDADD = $(fuzz_libs)
fuzz_info_LDFLAGS = $(fuzz_ldflags)

fuzz_luks1_SOURCES = tests/fuzz/fuzz_luks.cpp $(fuzz_image)
fuzz_luks1_LDADD = $(fuzz_libs)
fuzz_luks1_LDFLAGS = $(fuzz_ldflags)

fuzz_luks2_SOURCES = tests/fuzz/fuzz_luks.cpp $(fuzz_image)
fuzz_luks2_LDADD = $(fuzz_libs)
fuzz_luks2_LDFLAGS = $(fuzz_ldflags)
fuzz_luks2_mutator = \
	tests/fuzz/fuzz_luks2_mutator.cpp \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	$(END)
if FUZZING
fuzz_luks2_SOURCES += $(fuzz_luks2_mutator)
endif

fuzz_parameters_SOURCES = tests/fuzz/fuzz_parameters.cpp $(fuzz_image) \
	plugin/backing_chain.cpp \
	plugin/config.cpp \
	plugin/image.cpp \
	plugin/key_file.cpp \
	plugin/layer_list.cpp \
	plugin/luks_partitions.cpp \
	plugin/nbd_device.cpp \
	plugin/opener.cpp \
	plugin/private_names.cpp \
	$(END)
fuzz_parameters_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS) $(LIBNBD_CFLAGS)
fuzz_parameters_LDADD = $(fuzz_libs) $(LIBNBD_LIBS)
fuzz_parameters_LDFLAGS = $(fuzz_ldflags)

fuzz_partition_SOURCES = tests/fuzz/fuzz_partition.cpp $(fuzz_image)
fuzz_partition_LDADD = $(fuzz_libs) $(ZLIB_LIBS)
fuzz_partition_LDFLAGS = $(fuzz_ldflags)

fuzz_qcow2_SOURCES = tests/fuzz/fuzz_qcow2.cpp $(fuzz_qcow2_mutator) $(fuzz_image)
fuzz_qcow2_LDADD = $(fuzz_libs)
fuzz_qcow2_LDFLAGS = $(fuzz_ldflags)

# Written, beside a model of what was acknowledged.
fuzz_writing = $(fuzz_image) \
	tests/fuzz/overlay_device.hpp \
	tests/fuzz/written_disk.cpp \
	tests/fuzz/written_disk.hpp \
	$(END)

fuzz_luks_write_SOURCES = tests/fuzz/fuzz_luks_write.cpp $(fuzz_writing)
fuzz_luks_write_LDADD = $(fuzz_libs)
fuzz_luks_write_LDFLAGS = $(fuzz_ldflags)

fuzz_qcow2_write_SOURCES = \
	tests/fuzz/fuzz_qcow2_write.cpp \
	tests/support/qcow2_check.cpp \
	tests/support/qcow2_check.hpp \
	$(fuzz_qcow2_mutator) \
	$(fuzz_writing)
fuzz_qcow2_write_LDADD = $(fuzz_libs)
fuzz_qcow2_write_LDFLAGS = $(fuzz_ldflags)

fuzz_seeds_SOURCES = \
	tests/fuzz/kdf_stub.cpp \
	tests/fuzz/make_seeds.cpp \
	tests/fuzz/seeds.cpp \
	tests/fuzz/seeds.hpp \
	tests/fuzz/seeds_luks.cpp \
	tests/fuzz/seeds_parameters.cpp \
	tests/fuzz/seeds_partition.cpp \
	tests/fuzz/seeds_qcow2.cpp \
	tests/fuzz/seeds_qcow2_write.cpp \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/support/partition_builder.hpp \
	tests/support/qcow2_image.hpp \
	tests/support/stored_image.cpp \
	tests/support/stored_image.hpp \
	tests/support/streams.hpp \
	$(END)
fuzz_seeds_LDADD = $(fuzz_libs) $(ZLIB_LIBS) $(ZSTD_LIBS)

TESTS += tests/fuzz/replay_test.sh
EXTRA_DIST += \
	$(patsubst %,tests/fuzz/%.dict,$(filter-out %_info %_write,$(fuzz_targets))) \
	tests/fuzz/coverage.sh \
	tests/fuzz/replay_test.sh \
	tests/fuzz/run.sh \
	tests/fuzz/uncounted.list \
	$(END)

# Both make a build of their own, with clang.
have_fuzz_cxx = test -n '$(FUZZ_CXX)' || { \
	echo "this needs clang++ with libFuzzer: install clang and libclang-rt-dev (Debian), clang and compiler-rt (Fedora)," \
	  "then run configure again" >&2; exit 1; }

# make fuzz SECONDS=N: each target for so long, two at a time.  What they find is in fuzzing/findings.
SECONDS = 60
fuzz:
	@$(have_fuzz_cxx)
	test -e fuzzing/config.status || { mkdir -p fuzzing && cd fuzzing && \
	  '$(abs_top_srcdir)/configure' --enable-fuzzing CXX='$(FUZZ_CXX)' CXXFLAGS='-O1 -g'; }
	$(MAKE) -C fuzzing $(fuzz_targets) fuzz_seeds
	cd fuzzing && bash '$(abs_top_srcdir)/tests/fuzz/run.sh' '$(SECONDS)' $(fuzz_targets)

# make coverage: the lines of the parsers that unit tests and fuzz targets reach, with what "make fuzz" has collected.
coverage_programs = $(fuzz_targets)
if HAVE_GTEST
coverage_programs += crypto_test faults_test luks_test partition_test qcow2_test
endif
coverage:
	@$(have_fuzz_cxx)
	test -e coverage/config.status || { mkdir -p coverage && cd coverage && \
	  '$(abs_top_srcdir)/configure' CXX='$(FUZZ_CXX)' CXXFLAGS='-O1 -g -fprofile-instr-generate -fcoverage-mapping'; }
	$(MAKE) -C coverage $(coverage_programs) fuzz_seeds
	cd coverage && FUZZ_CXX='$(FUZZ_CXX)' bash '$(abs_top_srcdir)/tests/fuzz/coverage.sh' \
	  '$(abs_top_srcdir)' ../fuzzing/corpus $(coverage_programs)
.PHONY: coverage fuzz
