/* SPDX-License-Identifier: BSD-3-Clause */
/* The instruction sets that code is compiled for beyond the baseline, each named once.
 *
 * They are attributes of functions and not compiler flags of files: with -mavx512f on a file, an inline function of a
 * shared header that is kept out of line is emitted with AVX-512 as well, and the linker may keep that copy for the
 * whole program, which then dies with SIGILL on another CPU.
 *
 * A vector kernel defines QLUKS_ISA as one of these before it includes the bodies (vector_*.hpp), which live in an
 * unnamed namespace and so are compiled for each kernel anew.
 */
#ifndef QLUKS_CRYPTO_ISA_HPP
#define QLUKS_CRYPTO_ISA_HPP

#define QLUKS_ISA_AESNI __attribute__((target("sse4.1,aes,pclmul")))
#define QLUKS_ISA_VAES256 __attribute__((target("avx2,aes,pclmul,vaes,vpclmulqdq")))
#define QLUKS_ISA_VAES512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,aes,pclmul,vaes,vpclmulqdq")))
#define QLUKS_ISA_ARMV8 __attribute__((target("+crypto")))
#define QLUKS_ISA_AVX2 __attribute__((target("avx2")))
#define QLUKS_ISA_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
/* Without AVX: SHA-NI has no VEX form, and mixing the two can cost a hundredfold (see pbkdf2_shani.cpp). */
#define QLUKS_ISA_SHANI __attribute__((target("sse4.1,sha")))

/* A step of a kernel: it must be inlined, since vectors in registers would not survive a call. */
#define QLUKS_STEP QLUKS_ISA __attribute__((always_inline)) inline
/* Behind the parameters of a lambda, which takes over nothing from the function around it. */
#define QLUKS_STEP_LAMBDA QLUKS_ISA __attribute__((always_inline))

#endif
