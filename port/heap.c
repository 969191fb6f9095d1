// Access to the heap's blocks, which py/gc.c keeps private.
#include "port/heap.h"
#include "port/room.h"

void heap_init(void) {
    MP_STATE_MEM(area).gc_alloc_table_byte_len &= -sizeof(uint64_t);
    room_collected(false);
}

// An object is its first block and the tails behind it: this finds the first block that is no tail.
size_t heap_size_of(const void *ptr) {
    size_t first = heap_block(ptr);
    size_t word = (first + 1) / HEAP_BLOCKS_PER_WORD;
    uint64_t mask = ~0ull << 2 * ((first + 1) % HEAP_BLOCKS_PER_WORD);
    uint64_t others = 0;
    for (; word < heap_words(); word++, mask = ~0ull) {
        others = ~heap_tails(heap_word(word)) & HEAP_EACH & mask;
        if (others != 0) {
            break;
        }
    }
    unsigned at = others != 0 ? __builtin_ctzll(others) / 2 : 0;
    return (word * HEAP_BLOCKS_PER_WORD + at - first) * HEAP_BLOCK;
}
