dnl SPDX-License-Identifier: BSD-3-Clause

dnl QLUKS_RIVAL(PREFIX, MODULES): a library that the benchmark is compared with, if it is there.
AC_DEFUN([QLUKS_RIVAL], [
  PKG_CHECK_MODULES([$1], [$2], [
    RIVALS_CPPFLAGS="$RIVALS_CPPFLAGS -DHAVE_$1=1 $[$1]_CFLAGS"
    RIVALS_LIBS="$RIVALS_LIBS $[$1]_LIBS"
    rivals="$rivals $2"
  ], [:])
])

dnl Nothing but the benchmark uses them.
AC_DEFUN([QLUKS_RIVALS], [
  rivals=nettle
  QLUKS_RIVAL([GNUTLS], [gnutls])
  QLUKS_RIVAL([OPENSSL], [libcrypto])
  QLUKS_RIVAL([LIBGCRYPT], [libgcrypt])
  AC_SUBST([RIVALS_CPPFLAGS])
  AC_SUBST([RIVALS_LIBS])
])
