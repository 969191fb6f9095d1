// memcpy, memmove and memset by the string instructions, eight bytes a step: guests'
// memory is cleared and copied with them. Short blocks take plain loops, which start
// faster. MicroPython's own functions (shared/libc/string0.c) take four bytes a step.
// The direction flag is clear, by the ABI and by trap_entry.S.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SHORT 64

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    char *d = to;
    const char *s = from;
    if (size >= SHORT) {
        size_t words = size / 8;
        __asm volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(words) : : "memory");
        size &= 7;
    }
    while (size >= 8) {
        uint64_t word = *(const uint64_t *)s;
        *(uint64_t *)d = word;
        d += 8;
        s += 8;
        size -= 8;
    }
    while (size--) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    if (to == from) {
        return to; // MicroPython calls it so for the tail of an assigned slice
    }
    if ((uintptr_t)to - (uintptr_t)from >= size) {
        return memcpy(to, from, size); // disjoint, or to below from
    }
    char *d = (char *)to + size;
    const char *s = (const char *)from + size;
    while (size >= 8) {
        d -= 8;
        s -= 8;
        size -= 8;
        uint64_t word = *(const uint64_t *)s;
        *(uint64_t *)d = word;
    }
    while (size--) {
        *--d = *--s;
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    char *d = to;
    uint64_t word = (value & 0xff) * 0x0101010101010101ull;
    if (size >= SHORT) {
        size_t words = size / 8;
        __asm volatile("rep stosq" : "+D"(d), "+c"(words) : "a"(word) : "memory");
        size &= 7;
    }
    while (size >= 8) {
        *(uint64_t *)d = word;
        d += 8;
        size -= 8;
    }
    while (size--) {
        *d++ = value;
    }
    return to;
}
