// First fit in the heap, one word of the allocation table at a time.
//
// For an object of several blocks, gc_alloc() tests every block from the first hole on: 40,000 ticks in a dense heap,
// without a preemption point. The search here takes some 200 ticks a thousand blocks. For each class of sizes (1 to 16
// blocks, then powers of two, since a growing list doubles) it remembers the word below which no free run of that size
// exists. gc_alloc() is then made to begin at the run that was found. It takes ten instructions for
// each block of the object that it makes; long objects are made here.
#include "py/gc.h"
#include "port/heap.h"
#include "port/preempt.h"
#include "port/room.h"

#define EXACT   (16) // blocks: each size up to here is a class of its own
#define CLASSES (EXACT + 7) // the largest class is 256 KiB and more
#define NONE    ((size_t)-1)
#define LONG    (32) // blocks: an object of so many is made here

// By class: the word of the table below which no free run of the class's size exists. Never less than that of a smaller
// class.
static size_t least[CLASSES + 1];

static size_t size_of(size_t index) {
    return index <= EXACT ? index : (size_t)EXACT << (index - EXACT);
}

// The largest class of at most `size` blocks.
static size_t class_of(size_t size) {
    if (size <= EXACT) {
        return size;
    }
    size_t index = EXACT + 63 - __builtin_clzll(size / EXACT);
    return index < CLASSES ? index : CLASSES;
}

// Whether a word's free blocks have a run of `size`, 1 to 32; *first: the first block of the first such run.
static bool fits(uint64_t free, size_t size, unsigned *first) {
    for (size_t have = 1; have < size && free != 0;) {
        size_t more = have < size - have ? have : size - have;
        free &= free >> 2 * more;
        have += more;
    }
    *first = free != 0 ? __builtin_ctzll(free) / 2 : 0;
    return free != 0;
}

// The first block of the first free run of `size` blocks from byte `from` of the table on, or NONE. yields: guests may
// preempt the search.
static size_t find(size_t size, size_t from, bool yields) {
    size_t words = heap_words();
    size_t run = 0; // free blocks before this word
    uint64_t mask = ~0ull << 8 * (from % sizeof(uint64_t));
    for (size_t word = from / sizeof(uint64_t); word < words; word++, mask = ~0ull) {
        if (yields) {
            preempt_look();
        }
        uint64_t free = heap_free(heap_word(word)) & mask;
        if (free == 0) {
            run = 0;
            continue;
        }
        uint64_t used = ~free & HEAP_EACH;
        size_t low = used != 0 ? __builtin_ctzll(used) / 2 : HEAP_BLOCKS_PER_WORD;
        if (run + low >= size) {
            return word * HEAP_BLOCKS_PER_WORD - run;
        }
        if (used == 0) {
            run += low;
            continue;
        }
        unsigned first;
        if (size <= HEAP_BLOCKS_PER_WORD && fits(free, size, &first)) {
            return word * HEAP_BLOCKS_PER_WORD + first;
        }
        run = __builtin_clzll(used) / 2;
    }
    return NONE;
}

static void none_below(size_t size, size_t word) {
    size_t index = class_of(size);
    if (size_of(index) < size) {
        index++;
    }
    for (; index <= CLASSES && least[index] < word; index++) {
        least[index] = word;
    }
}

// gc_alloc() has an index of the first hole, but advances it one block at a time.
static void find_hole(mp_state_mem_area_t *area) {
    size_t at = area->gc_last_free_atb_index;
    size_t known = least[1] * sizeof(uint64_t);
    at = at > known ? at : known;
    if (at < area->gc_alloc_table_byte_len &&
        (heap_free(area->gc_alloc_table_start[at]) & 0xff) == 0) {
        size_t block = find(1, at, false);
        if (block == NONE) {
            return;
        }
        none_below(1, block / HEAP_BLOCKS_PER_WORD);
        at = block / HEAP_BLOCKS_PER_BYTE;
    }
    area->gc_last_free_atb_index = at;
}

size_t room_begin(size_t blocks) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    if (blocks <= 1) {
        find_hole(area);
        return ROOM_KEEP;
    }
    size_t from = area->gc_last_free_atb_index;
    size_t known = least[class_of(blocks)] * sizeof(uint64_t);
    size_t block = find(blocks, from > known ? from : known, false);
    if (block == NONE) {
        return ROOM_KEEP; // gc_alloc() collects
    }
    none_below(blocks, block / HEAP_BLOCKS_PER_WORD);
    area->gc_last_free_atb_index = block / HEAP_BLOCKS_PER_BYTE;
    return from;
}

// The tails of an object: blocks from `first` up to `end`, all of them free.
static void set_tails(size_t first, size_t end) {
    for (size_t block = first; block < end;) {
        size_t word = block / HEAP_BLOCKS_PER_WORD;
        size_t stop = (word + 1) * HEAP_BLOCKS_PER_WORD;
        stop = stop < end ? stop : end;
        uint64_t tails = (HEAP_EACH >> 2 * (HEAP_BLOCKS_PER_WORD - (stop - block)))
                         << 2 * (block % HEAP_BLOCKS_PER_WORD);
        heap_set_word(word, heap_word(word) | tails * HEAP_TAIL);
        block = stop;
    }
}

void *room_take(size_t blocks, size_t begun) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    bool collects = MP_STATE_MEM(gc_auto_collect_enabled) &&
                    MP_STATE_MEM(gc_alloc_amount) >= MP_STATE_MEM(gc_alloc_threshold);
    if (begun == ROOM_KEEP || blocks < LONG || MP_STATE_THREAD(gc_lock_depth) > 0 || collects) {
        return NULL;
    }
    size_t block = find(blocks, area->gc_last_free_atb_index, false); // room_begin() has led there
    size_t last = block + blocks - 1;
    if (area->gc_last_used_block < last) {
        area->gc_last_used_block = last;
    }
    size_t word = block / HEAP_BLOCKS_PER_WORD;
    uint64_t head = (uint64_t)HEAP_HEAD << 2 * (block % HEAP_BLOCKS_PER_WORD);
    heap_set_word(word, heap_word(word) | head);
    set_tails(block + 1, block + blocks);
    MP_STATE_MEM(gc_alloc_amount) += blocks;
    void *object = area->gc_pool_start + block * HEAP_BLOCK;
    return memset(object, 0, blocks * HEAP_BLOCK);
}

// Restores the index of the first hole, unless gc_realloc() has freed a block below it.
void room_end(size_t begun) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    if (begun < area->gc_last_free_atb_index) {
        area->gc_last_free_atb_index = begun;
    }
}

// The length of the free run around `block`, counted up to the largest class; *first: its first block.
static size_t run_around(size_t block, size_t *first) {
    size_t word = block / HEAP_BLOCKS_PER_WORD;
    uint64_t below = ((uint64_t)1 << 2 * (block % HEAP_BLOCKS_PER_WORD)) - 1;
    uint64_t used = ~heap_free(heap_word(word)) & HEAP_EACH;
    unsigned low = (used & below) != 0 ? (63 - __builtin_clzll(used & below)) / 2 + 1 : 0;
    unsigned high =
        (used & ~below) != 0 ? __builtin_ctzll(used & ~below) / 2 : HEAP_BLOCKS_PER_WORD;
    size_t most = size_of(CLASSES);
    size_t run = high - low;
    *first = word * HEAP_BLOCKS_PER_WORD + low;
    for (size_t at = word; low == 0 && at > 0 && run < most; at--) {
        used = ~heap_free(heap_word(at - 1)) & HEAP_EACH;
        unsigned more = used != 0 ? __builtin_clzll(used) / 2 : HEAP_BLOCKS_PER_WORD;
        low = used != 0;
        run += more;
        *first -= more;
    }
    for (size_t at = word + 1; high == HEAP_BLOCKS_PER_WORD && at < heap_words() && run < most;
         at++) {
        used = ~heap_free(heap_word(at)) & HEAP_EACH;
        high = used != 0 ? __builtin_ctzll(used) / 2 : HEAP_BLOCKS_PER_WORD;
        run += high;
    }
    return run;
}

// A list that has moved leaves a hole that is too small for it: only classes up to the hole's size search there again.
void room_freed(size_t block) {
    if (heap_kind(block) != HEAP_FREE) {
        return; // still in use: the object has not moved
    }
    size_t first;
    size_t run = run_around(block, &first);
    size_t word = first / HEAP_BLOCKS_PER_WORD;
    for (size_t index = class_of(run); index > 0 && least[index] > word; index--) {
        least[index] = word;
    }
}

// Blocks that handlers free while this learns may stay unused until the next collection.
void room_collected(bool learn) {
    memset(least, 0, sizeof(least));
    for (size_t index = 1; learn && index <= CLASSES; index++) {
        size_t block = find(size_of(index), least[index] * sizeof(uint64_t), true);
        if (block == NONE) {
            return;
        }
        none_below(size_of(index), block / HEAP_BLOCKS_PER_WORD);
    }
}
