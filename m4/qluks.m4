dnl SPDX-License-Identifier: BSD-3-Clause

dnl QLUKS_REQUIRE_PKG(PREFIX, MODULES, DEBIAN PACKAGE, FEDORA PACKAGE)
AC_DEFUN([QLUKS_REQUIRE_PKG], [
  PKG_CHECK_MODULES([$1], [$2], [],
    [AC_MSG_ERROR([$2 is missing: install $3 (Debian) or $4 (Fedora)])])
])

dnl QLUKS_REQUIRE_HEADER(HEADER, DEBIAN PACKAGE, FEDORA PACKAGE)
AC_DEFUN([QLUKS_REQUIRE_HEADER], [
  AC_CHECK_HEADER([$1], [], [AC_MSG_ERROR([$1 is missing: install $2 (Debian) or $3 (Fedora)])])
])

dnl The language: C++20 by name, so that GNU extensions are not used by chance.
AC_DEFUN([QLUKS_CXX20], [
  AC_CACHE_CHECK([how to ask $CXX for C++20], [qluks_cv_cxx20], [
    qluks_save="$CXXFLAGS"
    CXXFLAGS="$CXXFLAGS -std=c++20"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <concepts>
#include <span>]], [[std::span<int> s; return static_cast<int>(s.size());]])],
      [qluks_cv_cxx20=-std=c++20], [qluks_cv_cxx20=no])
    CXXFLAGS="$qluks_save"
  ])
  AS_IF([test "$qluks_cv_cxx20" = no], [AC_MSG_ERROR([$CXX does not know C++20: g++ 12 or clang 14 do])])
  CXXFLAGS="$CXXFLAGS $qluks_cv_cxx20"
])

AC_DEFUN([QLUKS_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [make every warning an error (for developers and CI)])],
    [], [enable_werror=no])
  WARN_CXXFLAGS="-Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor"
  AS_IF([test "$enable_werror" = yes], [WARN_CXXFLAGS="$WARN_CXXFLAGS -Werror"])
  AC_SUBST([WARN_CXXFLAGS])
])

dnl --enable-sanitizers=address,undefined or =thread
AC_DEFUN([QLUKS_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers=LIST], [build with sanitizers: address,undefined or thread])],
    [qluks_sanitizers="$enableval"], [qluks_sanitizers=])
  AS_CASE([$qluks_sanitizers], [no], [qluks_sanitizers=], [yes], [qluks_sanitizers=address,undefined])
  AS_IF([test -n "$qluks_sanitizers"], [
    dnl Some distributions build with the library's own checks: none of them may fail, either.
    SANITIZER_FLAGS="-fsanitize=$qluks_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer -g -D_GLIBCXX_ASSERTIONS"
  ])
  AC_SUBST([SANITIZER_FLAGS])
  dnl nbdkit itself is not instrumented, so it has to load the run-time libraries before everything else.
  SANITIZER_PRELOAD=
  AS_CASE([$qluks_sanitizers], [*address*], [SANITIZER_PRELOAD="$($CXX -print-file-name=libasan.so)"],
          [*thread*], [SANITIZER_PRELOAD="$($CXX -print-file-name=libtsan.so)"])
  AS_CASE([$qluks_sanitizers], [*undefined*],
          [SANITIZER_PRELOAD="$SANITIZER_PRELOAD $($CXX -print-file-name=libubsan.so)"])
  AC_SUBST([SANITIZER_PRELOAD])
  AC_SUBST([SANITIZERS], [$qluks_sanitizers])
])
