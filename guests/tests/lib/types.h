/* Fixed-width names and the mode of this build.
 *
 * The Makefile defines exactly one of REAL16, PROT32, PAE and LONG64 as 1.
 */
#ifndef TESTS_TYPES_H
#define TESTS_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uintptr_t word; /* a general register */

#ifndef REAL16
#define REAL16 0
#endif
#ifndef PROT32
#define PROT32 0
#endif
#ifndef PAE
#define PAE 0
#endif
#ifndef LONG64
#define LONG64 0
#endif

#define PROT  (PROT32 || PAE) /* 32-bit protected mode */
#define PAGED (!REAL16) /* has a paging test */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PACKED       __attribute__((packed))

#endif
