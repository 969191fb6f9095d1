// Sums of 16-bit words for the checksums of IP, TCP and UDP (RFC 1071).
#include <stdint.h>
#include <string.h>
#include "py/runtime.h"

#define PIECE (64) // bytes of a step

// One's-complement sum of 64-bit words: the carry is added at the bottom, and the words are folded at the end.
static uint64_t add(uint64_t a, uint64_t b) {
    a += b;
    return a + (a < b);
}

static uint64_t add_piece(uint64_t total, const uint8_t *at) {
    __asm("addq   (%1), %0\n\t"
          "adcq  8(%1), %0\n\t"
          "adcq 16(%1), %0\n\t"
          "adcq 24(%1), %0\n\t"
          "adcq 32(%1), %0\n\t"
          "adcq 40(%1), %0\n\t"
          "adcq 48(%1), %0\n\t"
          "adcq 56(%1), %0\n\t"
          "adcq $0, %0"
          : "+r"(total)
          : "r"(at), "m"(*(const uint8_t(*)[PIECE])at)
          : "cc");
    return total;
}

// add_up(hpa, size, total) -> the one's-complement sum of `total` and of the little-endian 16-bit words of `size`
// bytes, folded to 16 bits. An odd last byte is the low one of its word.
static mp_obj_t mod_add_up(mp_obj_t hpa, mp_obj_t size_in, mp_obj_t total_in) {
    const uint8_t *at = (const uint8_t *)mp_obj_get_int_truncated(hpa);
    mp_int_t size = mp_obj_get_int(size_in);
    uint64_t total = mp_obj_get_int_truncated(total_in);
    for (; size >= PIECE; size -= PIECE, at += PIECE) {
        total = add_piece(total, at);
    }
    for (; size >= 8; size -= 8, at += 8) {
        total = add(total, *(const uint64_t *)at);
    }
    if (size > 0) {
        uint64_t word = 0;
        memcpy(&word, at, size);
        total = add(total, word);
    }
    total = (total >> 32) + (uint32_t)total;
    total = (total >> 32) + (uint32_t)total;
    total = (total >> 16) + (uint16_t)total;
    total = (total >> 16) + (uint16_t)total;
    return MP_OBJ_NEW_SMALL_INT((total >> 16) + (uint16_t)total);
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_add_up_obj, mod_add_up);
