/* Words that the kernels of every instruction set are written with. */
#ifndef CHIP_CPU_UNROLL_H
#define CHIP_CPU_UNROLL_H

#define INLINE static inline __attribute__((always_inline))

/* Loops over rows and vectors must vanish, or the sums would live in memory. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#endif
