# SPDX-License-Identifier: BSD-3-Clause
if HAVE_GTEST
unit_cppflags = $(AM_CPPFLAGS) $(GTEST_CFLAGS) -DVECTORS_DIR='"$(abs_top_srcdir)/tests/vectors"'

check_PROGRAMS += base_test
base_test_SOURCES = \
	tests/support/writable_device.hpp \
	tests/support/memory_device.hpp \
	tests/unit/base/aligned_test.cpp \
	tests/unit/base/base_test.cpp \
	tests/unit/base/range_lock_test.cpp \
	tests/unit/base/secure_buffer_test.cpp \
	$(END)
base_test_CPPFLAGS = $(unit_cppflags)
base_test_LDADD = libbase.la $(GTEST_LIBS)
TESTS += base_test

check_PROGRAMS += crypto_test
crypto_test_SOURCES = \
	tests/support/guarded.hpp \
	tests/support/nettle_reference.hpp \
	tests/support/patterns.hpp \
	tests/support/vectors.hpp \
	tests/unit/crypto/aes/engine_test.cpp \
	tests/unit/crypto/aes/kernels_test.cpp \
	tests/unit/crypto/kdf/pbkdf_test.cpp \
	tests/unit/crypto/modes_test.cpp \
	tests/unit/crypto/spec_test.cpp \
	tests/unit/crypto/traces_test.cpp \
	$(END)
crypto_test_CPPFLAGS = $(unit_cppflags)
crypto_test_LDADD = libsectorcrypto.la libbase.la $(GTEST_LIBS) $(NETTLE_LIBS)
TESTS += crypto_test
check_PROGRAMS += luks_test
luks_test_SOURCES = \
	tests/support/writable_device.hpp \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/unit/luks/af_test.cpp \
	tests/unit/luks/keyring_test.cpp \
	tests/unit/luks/layer_test.cpp \
	tests/unit/luks/luks1_test.cpp \
	tests/unit/luks/luks2_copies_test.cpp \
	tests/unit/luks/luks2_json_test.cpp \
	tests/unit/luks/luks2_test.cpp \
	tests/unit/luks/outcome_memory_test.cpp \
	tests/unit/luks/text_test.cpp \
	tests/unit/luks/write_test.cpp \
	$(END)
luks_test_CPPFLAGS = $(unit_cppflags)
luks_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS)
TESTS += luks_test

# A program of its own, since it replaces the allocators of all that is in it.
check_PROGRAMS += freed_memory_test
freed_memory_test_SOURCES = \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/unit/luks/freed_memory_test.cpp \
	$(END)
freed_memory_test_CPPFLAGS = $(unit_cppflags)
freed_memory_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS)
TESTS += freed_memory_test
check_PROGRAMS += plugin_test
plugin_test_SOURCES = \
	plugin/next_device.cpp \
	tests/unit/plugin/next_device_test.cpp \
	$(END)
plugin_test_CPPFLAGS = $(unit_cppflags) $(NBDKIT_CFLAGS)
plugin_test_LDADD = libbase.la $(GTEST_LIBS)
TESTS += plugin_test
check_PROGRAMS += partition_test
partition_test_SOURCES = \
	tests/support/memory_device.hpp \
	tests/support/partition_builder.hpp \
	tests/support/writable_device.hpp \
	tests/unit/partition/gpt_test.cpp \
	tests/unit/partition/layer_test.cpp \
	tests/unit/partition/mbr_test.cpp \
	$(END)
partition_test_CPPFLAGS = $(unit_cppflags)
partition_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS) $(ZLIB_LIBS)
TESTS += partition_test
check_PROGRAMS += qcow2_test
qcow2_test_SOURCES = \
	tests/support/memory_device.hpp \
	tests/support/qcow2_image.hpp \
	tests/support/streams.hpp \
	tests/support/writable_device.hpp \
	tests/unit/formats/text_test.cpp \
	tests/unit/qcow2/cache_test.cpp \
	tests/unit/qcow2/compressed_test.cpp \
	tests/unit/qcow2/header_test.cpp \
	tests/unit/qcow2/layer_test.cpp \
	tests/unit/qcow2/map_test.cpp \
	tests/unit/qcow2/refcounts_test.cpp \
	tests/unit/qcow2/snapshot_test.cpp \
	tests/unit/qcow2/write_test.cpp \
	$(END)
qcow2_test_CPPFLAGS = $(unit_cppflags)
qcow2_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
TESTS += qcow2_test
check_PROGRAMS += faults_test
faults_test_SOURCES = \
	tests/faults/luks_write_test.cpp \
	tests/faults/lying_storage_test.cpp \
	tests/faults/qcow2_write_test.cpp \
	tests/faults/storage_test.cpp \
	tests/faults/workload.hpp \
	tests/faults/write_workload.hpp \
	tests/support/faulty_device.hpp \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/support/qcow2_check.cpp \
	tests/support/qcow2_check.hpp \
	tests/support/qcow2_image.hpp \
	tests/support/stored_image.cpp \
	tests/support/stored_image.hpp \
	tests/support/streams.hpp \
	tests/support/writable_device.hpp \
	$(END)
faults_test_CPPFLAGS = $(unit_cppflags)
faults_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
TESTS += faults_test

# A program of its own, since it replaces the allocators of all that is in it.
check_PROGRAMS += memory_faults_test
memory_faults_test_SOURCES = \
	tests/faults/luks_write_memory_test.cpp \
	tests/faults/memory_test.cpp \
	tests/faults/qcow2_write_memory_test.cpp \
	tests/faults/workload.hpp \
	tests/faults/write_workload.hpp \
	tests/support/failing_memory.cpp \
	tests/support/failing_memory.hpp \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/support/plain_storage.hpp \
	tests/support/qcow2_check.cpp \
	tests/support/qcow2_check.hpp \
	tests/support/qcow2_image.hpp \
	tests/support/stored_image.cpp \
	tests/support/stored_image.hpp \
	tests/support/streams.hpp \
	$(END)
memory_faults_test_CPPFLAGS = $(unit_cppflags)
memory_faults_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
TESTS += memory_faults_test
check_PROGRAMS += threads_test
threads_test_SOURCES = \
	tests/support/luks_builder.cpp \
	tests/support/luks_builder.hpp \
	tests/support/memory_device.hpp \
	tests/support/qcow2_image.hpp \
	tests/support/stored_image.cpp \
	tests/support/stored_image.hpp \
	tests/support/streams.hpp \
	tests/support/qcow2_check.cpp \
	tests/support/qcow2_check.hpp \
	tests/unit/threads_test.cpp \
	tests/unit/threads_write_test.cpp \
	$(END)
threads_test_CPPFLAGS = $(unit_cppflags)
threads_test_LDADD = libformats.la libsectorcrypto.la libbase.la $(GTEST_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS)
TESTS += threads_test
endif

EXTRA_DIST += \
	tests/vectors/adiantum.vec \
	tests/vectors/aes_cbc.vec \
	tests/vectors/aes_xts.vec \
	tests/vectors/argon2.vec \
	tests/vectors/blocks.vec \
	tests/vectors/hash.vec \
	tests/vectors/lrw.vec \
	tests/vectors/make_sectors.py \
	tests/vectors/modes.vec \
	tests/vectors/pbkdf2.vec \
	tests/vectors/sectors.vec \
	$(END)

# End to end: real nbdkit, qemu-img, cryptsetup and libnbd.  The Python is the system's, which has python3-libnbd.
TEST_EXTENSIONS = .py .sh
PY_LOG_COMPILER = /usr/bin/python3
SH_LOG_COMPILER = bash
AM_TESTS_ENVIRONMENT = \
	srcdir='$(srcdir)'; export srcdir; \
	PYTHONPATH='$(abs_srcdir)/tests/support'; export PYTHONPATH; \
	PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE; \
	QLUKS_FILTER="$${QLUKS_INSTALLED_FILTER:-$(abs_builddir)/.libs/nbdkit-qluks-filter.so}"; export QLUKS_FILTER; \
	QLUKS_LIBGCRYPT='$(have_libgcrypt)'; export QLUKS_LIBGCRYPT; \
	QLUKS_PRELOAD='$(SANITIZER_PRELOAD)'; export QLUKS_PRELOAD; \
	QLUKS_DUMP_GUEST='$(abs_builddir)/dump_guest'; export QLUKS_DUMP_GUEST; \
	QLUKS_BUILD='$(abs_builddir)'; export QLUKS_BUILD;
e2e_tests = \
	tests/check-layering.sh \
	tests/luks-verdicts.sh \
	tests/e2e/grow_test.py \
	tests/e2e/key_programs_test.py \
	tests/e2e/bounds_test.py \
	tests/e2e/clients_test.py \
	tests/e2e/cut_short_test.py \
	tests/e2e/info_test.py \
	tests/e2e/luks_matrix_test.py \
	tests/e2e/luks_write_test.py \
	tests/e2e/messages_test.py \
	tests/e2e/parameters_test.py \
	tests/e2e/partitions_test.py \
	tests/e2e/qcow2_features_test.py \
	tests/e2e/qcow2_matrix_test.py \
	tests/e2e/qcow2_write_test.py \
	tests/e2e/secrets_test.py \
	tests/e2e/serving_test.py \
	tests/e2e/shutdown_test.py \
	tests/e2e/waits_test.py \
	$(END)
TESTS += $(e2e_tests)

# What the documents show, run as it stands there.
recipe_tests = \
	tests/recipes/comparison_test.py \
	tests/recipes/documented_test.py \
	tests/recipes/recipes_test.py \
	tests/recipes/scaling_test.py \
	$(END)
TESTS += $(recipe_tests)
EXTRA_DIST += \
	$(e2e_tests) \
	$(recipe_tests) \
	tests/recipes/boot_sector.s \
	tests/recipes/documented.py \
	tests/support/luks_secrets.py \
	tests/support/parallel_writes.py \
	tests/support/process_memory.py \
	tests/support/qluks.py \
	tests/support/raw_nbd.py \
	tests/support/web_server.py \
	$(END)

# Reads a qcow2 through the layers, without nbdkit; what it reads is compared with QEMU.
check_PROGRAMS += dump_guest
dump_guest_SOURCES = tests/support/dump_guest.cpp
dump_guest_LDADD = libformats.la libsectorcrypto.la libbase.la

# Writes one at random, and a model of it; QEMU then looks at both.
check_PROGRAMS += write_guest
write_guest_SOURCES = tests/support/write_guest.cpp
write_guest_LDADD = libformats.la libsectorcrypto.la libbase.la

# Cuts the power while one is written, in every way.
check_PROGRAMS += power_cut
power_cut_SOURCES = \
	tests/support/memory_device.hpp \
	tests/support/power_cut.cpp \
	tests/support/qcow2_check.cpp \
	tests/support/qcow2_check.hpp \
	tests/support/writable_device.hpp \
	$(END)
power_cut_LDADD = libformats.la libsectorcrypto.la libbase.la

# For nbdkit: a plugin that fails, and memory that does.  The rpath makes libtool build shared objects.
check_LTLIBRARIES = faulty_plugin.la failing_new.la
faulty_plugin_la_SOURCES = tests/support/faulty_plugin.cpp
faulty_plugin_la_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS)
faulty_plugin_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere
failing_new_la_SOURCES = tests/support/failing_new.cpp
failing_new_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere
faults_tests = tests/faults/kill_test.py tests/faults/nbdkit_test.py tests/faults/power_cut_test.py
TESTS += $(faults_tests)
EXTRA_DIST += $(faults_tests)

conformance_tests = \
	tests/conformance/partition_malformed_test.py \
	tests/conformance/qcow2_images_test.py \
	tests/conformance/qcow2_malformed_test.py \
	tests/conformance/qcow2_malformed_write_test.py \
	$(END)
TESTS += $(conformance_tests)
EXTRA_DIST += $(conformance_tests)

# What takes longer than "make check" may: "make check-long" runs it, and "make check" before it.
long_tests = \
	tests/aarch64.sh \
	tests/container.sh \
	tests/dm-crypt-vm.sh \
	tests/guest-vm.sh \
	tests/kubernetes.sh \
	tests/conformance/long.sh \
	tests/conformance/luks_malformed_test.py \
	tests/faults/long.sh \
	tests/faults/power_cut_long.sh \
	tests/recipes/appliance_test.py \
	tests/recipes/virt_v2v_test.py \
	$(END)
EXTRA_DIST += $(long_tests) tests/skips.sh tests/support/chroot.sh tests/support/vm.sh
EXTRA_DIST += tests/dm-crypt/cases.py tests/dm-crypt/init.sh tests/guest/guest_vm.py tests/guest/init.sh
clean-local:
	rm -rf dm-crypt-vm
# Ends with what both have skipped, and why.
check-long: check
	@$(MAKE) $(AM_MAKEFLAGS) check-TESTS check_PROGRAMS= TESTS='$(long_tests)' && failed=0 || failed=$$?; \
	bash $(srcdir)/tests/skips.sh $(TESTS) $(long_tests); exit $$failed
.PHONY: check-long
