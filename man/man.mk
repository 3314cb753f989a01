# SPDX-License-Identifier: BSD-3-Clause
man_MANS = man/nbdkit-qluks-filter.1
EXTRA_DIST += man/nbdkit-qluks-filter.pod
CLEANFILES += $(man_MANS)

man/nbdkit-qluks-filter.1: man/nbdkit-qluks-filter.pod
	$(AM_V_GEN)$(MKDIR_P) man && $(POD2MAN) --section=1 --center="nbdkit filters" --release="qluks $(VERSION)" \
	  --name=NBDKIT-QLUKS-FILTER --errors=die --utf8 $< $@.tmp && mv $@.tmp $@
