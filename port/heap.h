// The allocation table of MicroPython's heap: two bits a block, 32 blocks a word.
//
// py/gc.c scans the table a block at a time, at a dozen instructions each. The port scans it a word at a time: most
// words are full, or empty.
#ifndef PCANEL_PORT_HEAP_H
#define PCANEL_PORT_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "py/mpstate.h"

#define HEAP_BLOCK           MICROPY_BYTES_PER_GC_BLOCK
#define HEAP_BLOCKS_PER_BYTE (4) // of the allocation table
#define HEAP_BLOCKS_PER_WORD (32)
#define HEAP_EACH            (0x5555555555555555ull) // the lower bit of each block

// Kinds of blocks.
#define HEAP_FREE (0)
#define HEAP_HEAD (1)
#define HEAP_TAIL (2)
#define HEAP_MARK (3)

// After gc_init(): the table ends with a whole word.
void heap_init(void);

static inline size_t heap_words(void) {
    return MP_STATE_MEM(area).gc_alloc_table_byte_len / sizeof(uint64_t);
}

// The number of words up to the last block in use; all blocks behind them are free.
static inline size_t heap_words_used(void) {
    size_t used = MP_STATE_MEM(area).gc_last_used_block / HEAP_BLOCKS_PER_WORD + 1;
    return used < heap_words() ? used : heap_words();
}

static inline uint64_t heap_word(size_t word) {
    uint64_t kinds;
    memcpy(&kinds, MP_STATE_MEM(area).gc_alloc_table_start + word * sizeof(kinds), sizeof(kinds));
    return kinds;
}

static inline void heap_set_word(size_t word, uint64_t kinds) {
    memcpy(MP_STATE_MEM(area).gc_alloc_table_start + word * sizeof(kinds), &kinds, sizeof(kinds));
}

// The lower bit of each block of a kind.
static inline uint64_t heap_free(uint64_t kinds) {
    return ~(kinds | kinds >> 1) & HEAP_EACH;
}
static inline uint64_t heap_tails(uint64_t kinds) {
    return ~kinds & kinds >> 1 & HEAP_EACH;
}

static inline unsigned heap_kind(size_t block) {
    return MP_STATE_MEM(area).gc_alloc_table_start[block / HEAP_BLOCKS_PER_BYTE] >>
               2 * (block % HEAP_BLOCKS_PER_BYTE) &
           3;
}

static inline size_t heap_block(const void *ptr) {
    return ((const byte *)ptr - MP_STATE_MEM(area).gc_pool_start) / HEAP_BLOCK;
}

// Bytes of the blocks of an object.
size_t heap_size_of(const void *ptr);

// The number of blocks, whose lower bits are set.
static inline unsigned heap_count(uint64_t blocks) {
    blocks = (blocks & 0x3333333333333333) + (blocks >> 2 & 0x3333333333333333);
    blocks = (blocks + (blocks >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return blocks * 0x0101010101010101 >> 56;
}

#endif
