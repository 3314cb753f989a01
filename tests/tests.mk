# SPDX-License-Identifier: BSD-3-Clause
if HAVE_GTEST
unit_cppflags = $(AM_CPPFLAGS) $(GTEST_CFLAGS) -DVECTORS_DIR='"$(abs_top_srcdir)/tests/vectors"'

check_PROGRAMS += base_test
base_test_SOURCES = \
	tests/support/memory_device.hpp \
	tests/unit/aligned_test.cpp \
	tests/unit/base_test.cpp \
	$(END)
base_test_CPPFLAGS = $(unit_cppflags)
base_test_LDADD = libbase.la $(GTEST_LIBS)
TESTS += base_test
endif
