# SPDX-License-Identifier: BSD-3-Clause
man_MANS = man/nbdkit-qluks-filter.1 man/qluks-info.1
EXTRA_DIST += man/nbdkit-qluks-filter.pod man/qluks-info.pod
CLEANFILES += $(man_MANS)

make_man = $(MKDIR_P) man && $(POD2MAN) --section=1 --release="qluks $(VERSION)" --errors=die --utf8

man/nbdkit-qluks-filter.1: man/nbdkit-qluks-filter.pod
	$(AM_V_GEN)$(make_man) --center="nbdkit filters" --name=NBDKIT-QLUKS-FILTER $< $@.tmp && mv $@.tmp $@
man/qluks-info.1: man/qluks-info.pod
	$(AM_V_GEN)$(make_man) --center="qluks" --name=QLUKS-INFO $< $@.tmp && mv $@.tmp $@
