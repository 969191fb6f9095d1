// gc_collect_end() of a collection that guests may preempt, one word of the allocation table at a time.
//
// py/gc.c takes a dozen instructions a block to sweep, and scans the whole table of finalisers without a preemption
// point.
#include "py/gc.h"
#include "py/runtime.h"
#include "port/collect.h"
#include "port/heap.h"
#include "port/preempt.h"
#include "port/sweep.h"

#define BLOCKS_PER_BYTE (8) // of the table of finalisers

static void finalise(size_t block) {
    mp_obj_base_t *object =
        (mp_obj_base_t *)(void *)(MP_STATE_MEM(area).gc_pool_start + block * HEAP_BLOCK);
    if (object->type == NULL) {
        return;
    }
    mp_obj_t method[2];
    mp_load_method_maybe(MP_OBJ_FROM_PTR(object), MP_QSTR___del__, method);
    if (method[0] != MP_OBJ_NULL) {
        preempt_holds++; // the heap is locked: no guest's handler runs
        mp_sched_lock();
        mp_call_function_1_protected(method[0], method[1]);
        mp_sched_unlock();
        preempt_holds--;
    }
}

static void run_finalisers(void) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    for (size_t word = 0; word < heap_words_used(); word++) {
        // The 32 blocks of a word of the allocation table have 32 bits here.
        uint32_t flags;
        byte *at = area->gc_finaliser_table_start + word * sizeof(flags);
        collect_look(word * HEAP_BLOCKS_PER_WORD);
        memcpy(&flags, at, sizeof(flags));
        for (; flags != 0; flags &= flags - 1) {
            unsigned bit = __builtin_ctz(flags);
            size_t block = word * HEAP_BLOCKS_PER_WORD + bit;
            if (heap_kind(block) == HEAP_HEAD) {
                finalise(block);
                at[bit / BLOCKS_PER_BYTE] &= ~(1u << bit % BLOCKS_PER_BYTE);
            }
        }
    }
}

// Sweeps one word: unmarked heads become free with their tails, marked ones become heads. goes_on: whether the object
// at the end of the word before was freed, so that its tails here are. The tails of an unmarked head are found by an
// addition: with both bits of every tail set, adding 1 at the first carries through all of them.
static void sweep_word(size_t word, bool *goes_on) {
    uint64_t kinds = heap_word(word);
    uint64_t heads = kinds & ~(kinds >> 1) & HEAP_EACH;
    uint64_t marks = kinds & kinds >> 1 & HEAP_EACH;
    uint64_t tails = heap_tails(kinds);
    uint64_t both = tails | tails << 1;
    uint64_t gone = both & ~(both + ((heads << 2 | *goes_on) & tails));
    gone |= heads;
    *goes_on = (gone & 3ull << 62) != 0;
    heap_set_word(word, kinds & ~gone & ~(marks << 1));
}

static void free_unmarked(void) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    bool goes_on = false;
    size_t last = 0;
    // Handlers in between may allocate blocks behind the last: heap_words_used() grows.
    for (size_t word = 0; word < heap_words_used(); word++) {
        collect_look(word * HEAP_BLOCKS_PER_WORD);
        if (heap_word(word) == 0) {
            goes_on = false;
            continue;
        }
        sweep_word(word, &goes_on);
        uint64_t kinds = heap_word(word);
        if (kinds != 0) {
            last = word * HEAP_BLOCKS_PER_WORD + (63 - __builtin_clzll(kinds)) / 2;
        }
    }
    area->gc_last_used_block = last;
}

void sweep(void) {
    run_finalisers();
    free_unmarked();
    MP_STATE_MEM(area).gc_last_free_atb_index = 0;
    MP_STATE_THREAD(gc_lock_depth) &= ~GC_COLLECT_FLAG;
}
