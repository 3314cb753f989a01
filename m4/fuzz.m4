dnl SPDX-License-Identifier: BSD-3-Clause

dnl FUZZ_CXX: a clang++ that has libFuzzer and the sanitizers, or empty.  "make fuzz" configures a build of its own with
dnl it, by --enable-fuzzing; every other build links the same targets with a main() that replays files.
AC_DEFUN([QLUKS_FUZZING], [
  AC_ARG_VAR([FUZZ_CXX], [clang++ with libFuzzer, for "make fuzz" and "make coverage"])
  AC_CACHE_CHECK([for clang++ with libFuzzer], [qluks_cv_fuzz_cxx], [
    qluks_cv_fuzz_cxx=no
    cat >conftest.cpp <<END
#include <cstddef>
#include <cstdint>
extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }
END
    for qluks_cxx in "$FUZZ_CXX" clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
      AS_IF([test -n "$qluks_cxx" && $qluks_cxx -fsanitize=fuzzer,address,undefined conftest.cpp -o conftest 2>/dev/null],
            [qluks_cv_fuzz_cxx="$qluks_cxx"; break])
    done
    rm -f conftest conftest.cpp
  ])
  AS_IF([test "$qluks_cv_fuzz_cxx" = no], [FUZZ_CXX=], [FUZZ_CXX="$qluks_cv_fuzz_cxx"])

  AC_ARG_ENABLE([fuzzing],
    [AS_HELP_STRING([--enable-fuzzing], [link the fuzz targets with libFuzzer (what "make fuzz" does)])],
    [], [enable_fuzzing=no])
  AS_IF([test "$enable_fuzzing" = yes], [
    SANITIZER_FLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -D_GLIBCXX_ASSERTIONS"
    SANITIZER_FLAGS="$SANITIZER_FLAGS -fsanitize-coverage-ignorelist=$(cd "$srcdir" && pwd)/tests/fuzz/uncounted.list"
  ])
  AM_CONDITIONAL([FUZZING], [test "$enable_fuzzing" = yes])
])
