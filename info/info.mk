# SPDX-License-Identifier: BSD-3-Clause
bin_PROGRAMS = qluks-info
info_report_sources = \
	info/luks_report.cpp \
	info/luks_report.hpp \
	info/report.cpp \
	info/report.hpp \
	$(END)
qluks_info_SOURCES = $(info_report_sources) \
	info/main.cpp \
	plugin/nbd_device.cpp \
	plugin/nbd_device.hpp \
	plugin/image_lock.cpp \
	plugin/image_lock.hpp \
	plugin/sources.cpp \
	plugin/sources.hpp \
	$(END)
qluks_info_CPPFLAGS = $(AM_CPPFLAGS) $(LIBNBD_CFLAGS)
qluks_info_LDADD = libformats.la libsectorcrypto.la libbase.la $(LIBNBD_LIBS)

completiondir = $(datadir)/bash-completion/completions
EXTRA_DIST += info/qluks-info.bash
install-completion:
	$(MKDIR_P) '$(DESTDIR)$(completiondir)'
	$(INSTALL_DATA) '$(top_srcdir)/info/qluks-info.bash' '$(DESTDIR)$(completiondir)/qluks-info'
install-data-local: install-completion
uninstall-local:
	rm -f '$(DESTDIR)$(completiondir)/qluks-info'
.PHONY: install-completion
