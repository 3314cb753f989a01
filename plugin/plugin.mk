# SPDX-License-Identifier: BSD-3-Clause
filter_LTLIBRARIES = nbdkit-qluks-filter.la
nbdkit_qluks_filter_la_SOURCES = \
	plugin/backing_chain.cpp \
	plugin/backing_chain.hpp \
	plugin/config.cpp \
	plugin/config.hpp \
	plugin/connection.cpp \
	plugin/connection.hpp \
	plugin/filter.cpp \
	plugin/growing_file.cpp \
	plugin/growing_file.hpp \
	plugin/guard.cpp \
	plugin/guard.hpp \
	plugin/image.cpp \
	plugin/image.hpp \
	plugin/image_lock.cpp \
	plugin/image_lock.hpp \
	plugin/key_command.cpp \
	plugin/key_command.hpp \
	plugin/key_file.cpp \
	plugin/key_file.hpp \
	plugin/layer_list.cpp \
	plugin/layer_list.hpp \
	plugin/luks_partitions.cpp \
	plugin/luks_partitions.hpp \
	plugin/nbd_device.cpp \
	plugin/nbd_device.hpp \
	plugin/next_device.cpp \
	plugin/next_device.hpp \
	plugin/opener.cpp \
	plugin/opener.hpp \
	plugin/passphrase.cpp \
	plugin/passphrase.hpp \
	plugin/private_names.cpp \
	plugin/private_names.hpp \
	plugin/shutdown_check.cpp \
	plugin/shutdown_check.hpp \
	plugin/sources.cpp \
	plugin/sources.hpp \
	$(END)
nbdkit_qluks_filter_la_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS) $(LIBNBD_CFLAGS)
nbdkit_qluks_filter_la_LIBADD = libformats.la libsectorcrypto.la libbase.la $(LIBNBD_LIBS)
# nodelete: no code is unmapped that a thread of nbdkit may still be in while it exits.
nbdkit_qluks_filter_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -Wl,-z,nodelete \
	-Wl,--version-script=$(top_srcdir)/plugin/filter.syms
nbdkit_qluks_filter_la_DEPENDENCIES = libformats.la libsectorcrypto.la libbase.la plugin/filter.syms
EXTRA_DIST += plugin/filter.syms

# A filter runs only under the nbdkit that it was compiled for, to the last digit of the version.
install-data-hook:
	@running=`nbdkit --dump-config 2>/dev/null | sed -n 's/^version=//p'`; \
	if test -n "$$running" && test "$$running" != "$(NBDKIT_VERSION)"; then \
	  echo "warning: built for nbdkit $(NBDKIT_VERSION), but the nbdkit on PATH is $$running and will refuse it" >&2; \
	fi
# libtool's .la file is of no use to nbdkit.
	rm -f $(DESTDIR)$(filterdir)/nbdkit-qluks-filter.la
uninstall-hook:
	rm -f $(DESTDIR)$(filterdir)/nbdkit-qluks-filter.so
