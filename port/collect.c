// Garbage collection that a guest of higher priority can interrupt.
//
// MicroPython's collector (py/gc.c) calls collect_look() in its loops. When the scheduler is due
// (port/preempt.h), guests run in the middle of the collection, and their handlers may change
// and create objects:
//
//  - while it marks, a reference may move from an object that is not scanned yet into one that
//    is. So pages written meanwhile are scanned again, by the dirty bits of the heap's 4 KiB
//    pages (port/paging.h);
//  - while it sweeps (port/sweep.c), a new object is allocated behind the block that the sweep has
//    reached, and is marked. The sweep unmarks it there;
//  - nothing is freed, and nothing grows or shrinks in place.
//
// Only a requested collection, usually the scheduler's, can be preempted. One inside an
// allocation cannot: its caller is in the middle of an operation, and memory is short.
//
// The linker redirects calls of gc_alloc() and its siblings here (--wrap).
#include "py/gc.h"
#include "py/mpstate.h"
#include "py/runtime.h"
#include "shared/runtime/gchelper.h"
#include "port/budget.h"
#include "port/collect.h"
#include "port/heap.h"
#include "port/paging.h"
#include "port/room.h"
#include "port/sweep.h"
#include "port/x86.h"

#define BLOCK  HEAP_BLOCK
#define PIECE  (16) // words between two readings of the clock
#define ROUNDS (8) // over pages written meanwhile, before the last one, which cannot be preempted

bool collect_yields;
collect_statistics_t collect_statistics;

static struct {
    enum { NONE, MARKING, SWEEPING } phase;
    bool inside; // guests run in the middle of a collection
    bool disturbed; // they have run since the marked objects were scanned
    unsigned allocating;
    unsigned auto_collect; // its value before an allocation that must not collect
} state;

void *__real_gc_alloc(size_t size, unsigned flags);
void __real_gc_free(void *ptr);
void *__real_gc_realloc(void *ptr, size_t size, bool allow_move);
void *__wrap_gc_alloc(size_t size, unsigned flags);
void __wrap_gc_free(void *ptr);
void *__wrap_gc_realloc(void *ptr, size_t size, bool allow_move);

// -- the heap's blocks

static void mark(const void *ptr) {
    size_t block = heap_block(ptr);
    MP_STATE_MEM(area).gc_alloc_table_start[block / HEAP_BLOCKS_PER_BYTE] |=
        HEAP_MARK << 2 * (block % HEAP_BLOCKS_PER_BYTE);
}

// -- allocations by handlers in the middle of a collection

static size_t blocks(size_t size) {
    return (size + BLOCK - 1) / BLOCK;
}

// Returns gc_alloc_amount, for end_allocating(). A call with a limit never starts a collection.
static size_t begin_allocating(void) {
    state.allocating++;
    state.auto_collect = MP_STATE_MEM(gc_auto_collect_enabled);
    if (budget_limits()) {
        MP_STATE_MEM(gc_auto_collect_enabled) = 0;
    }
    return MP_STATE_MEM(gc_alloc_amount);
}

static void end_allocating(size_t before, bool failed) {
    state.allocating--;
    if (budget_limits()) {
        MP_STATE_MEM(gc_auto_collect_enabled) = state.auto_collect;
        if (failed) {
            budget_none();
        }
    }
    budget_allocated(before);
}

void *__wrap_gc_alloc(size_t size, unsigned flags) {
    if (!budget_take(blocks(size))) {
        return NULL;
    }
    size_t before = begin_allocating();
    size_t begun = room_begin(blocks(size));
    void *ptr = flags == 0 ? room_take(blocks(size), begun) : NULL;
    if (ptr == NULL) {
        ptr = __real_gc_alloc(size, flags);
    }
    room_end(begun);
    end_allocating(before, ptr == NULL && size != 0);
    if (state.inside && state.phase == SWEEPING && ptr != NULL) {
        mark(ptr);
    }
    return ptr;
}

void __wrap_gc_free(void *ptr) {
    if (!state.inside) {
        __real_gc_free(ptr);
        if (ptr != NULL) {
            room_freed(heap_block(ptr));
        }
    }
}

// Whether an object of `had` bytes has to move to grow to `size`: too few blocks behind it are free.
static bool has_to_move(const void *ptr, size_t had, size_t size) {
    if (ptr == NULL) {
        return true;
    }
    size_t block = heap_block(ptr) + had / BLOCK;
    size_t end = heap_block(ptr) + blocks(size);
    size_t last = heap_words() * HEAP_BLOCKS_PER_WORD;
    while (block < end && block < last && heap_kind(block) == HEAP_FREE) {
        block++;
    }
    return block < end;
}

static void *resize(void *ptr, size_t had, size_t size, bool allow_move) {
    if (size > had && !budget_take(blocks(size - had))) {
        return NULL;
    }
    size_t before = begin_allocating();
    size_t begun = allow_move && has_to_move(ptr, had, size) ? room_begin(blocks(size)) : ROOM_KEEP;
    void *moved = __real_gc_realloc(ptr, size, allow_move);
    room_end(begun);
    if (ptr != NULL && moved != ptr) {
        room_freed(heap_block(ptr));
    } else if (ptr != NULL && blocks(size) < blocks(had)) {
        room_freed(heap_block(ptr) + blocks(size));
    }
    end_allocating(before, moved == NULL && size != 0 && allow_move);
    return moved;
}

void *__wrap_gc_realloc(void *ptr, size_t size, bool allow_move) {
    if (!state.inside) {
        return resize(ptr, ptr != NULL ? heap_size_of(ptr) : 0, size, allow_move);
    }
    if (ptr == NULL || size == 0) {
        return size == 0 ? NULL : __wrap_gc_alloc(size, 0);
    }
    size_t had = heap_size_of(ptr);
    if (size <= had) {
        return ptr;
    }
    void *moved = allow_move ? __wrap_gc_alloc(size, 0) : NULL;
    if (moved != NULL) {
        memcpy(moved, ptr, had);
    }
    return moved;
}

// -- the collection

static void notice_late(void) {
    uint64_t late = rdtsc() - preempt_at;
    if (late > collect_statistics.latest) {
        collect_statistics.latest = late;
    }
}

void collect_yield(size_t at) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    size_t locks = MP_STATE_THREAD(gc_lock_depth);
    notice_late();
    collect_statistics.yields++;
    state.inside = true;
    state.disturbed = true;
    collect_yields = false;
    MP_STATE_THREAD(gc_lock_depth) = 0;
    if (state.phase == SWEEPING) {
        area->gc_last_free_atb_index = at / HEAP_BLOCKS_PER_BYTE + 1;
    }
    preempt();
    MP_STATE_THREAD(gc_lock_depth) = locks;
    collect_yields = true;
    state.inside = false;
}

static void look_at_roots(void) {
    void **roots = (void **)(void *)&mp_state_ctx;
    size_t first = offsetof(mp_state_ctx_t, thread.dict_locals) / sizeof(void *);
    size_t end = offsetof(mp_state_ctx_t, vm.qstr_last_chunk) / sizeof(void *);
    gc_collect_root(roots + first, end - first);
}

// As gc_collect_root(), at half the cost for words that are no pointers.
static void look_at_words(void **words, size_t count) {
    uintptr_t start = (uintptr_t)MP_STATE_MEM(area).gc_pool_start;
    uintptr_t size = (uintptr_t)MP_STATE_MEM(area).gc_pool_end - start;
    for (size_t i = 0; i < count;) {
        collect_look(0);
        for (size_t end = i + PIECE < count ? i + PIECE : count; i < end; i++) {
            uintptr_t word = (uintptr_t)words[i];
            if (word - start < size && word % BLOCK == 0) {
                gc_collect_root(words + i, 1);
            }
        }
    }
}

static void look_at_dirty_pages(void) {
    const mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    uintptr_t end = (uintptr_t)area->gc_pool_start + (area->gc_last_used_block + 1) * BLOCK;
    uintptr_t page = (uintptr_t)area->gc_pool_start & -PAGE_4K;
    while ((page = paging_take_dirty(page, end)) < end) {
        look_at_words((void **)page, PAGE_4K / sizeof(void *));
        page += PAGE_4K;
    }
}

// Marked objects whose contents did not fit on the collector's stack.
static void look_at_overflow(void) {
    const mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    while (MP_STATE_MEM(gc_stack_overflow)) {
        MP_STATE_MEM(gc_stack_overflow) = 0;
        for (size_t block = 0; block <= area->gc_last_used_block; block++) {
            if (heap_kind(block) == HEAP_MARK) {
                byte *object = area->gc_pool_start + block * BLOCK;
                look_at_words((void **)object, heap_size_of(object) / sizeof(void *));
            }
        }
    }
}

static void collect_yielding(void) {
    paging_clean(); // guests may preempt it: marking has not begun
    state.phase = MARKING;
    state.disturbed = false;
    collect_yields = true;
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    for (unsigned round = 0; state.disturbed || MP_STATE_MEM(gc_stack_overflow); round++) {
        collect_yields = round < ROUNDS;
        state.disturbed = false;
        look_at_overflow();
        look_at_roots();
        look_at_dirty_pages();
    }
    collect_yields = true;
    state.phase = SWEEPING;
    sweep();
    collect_yields = false;
    state.phase = NONE;
    room_collected(true);
    budget_collected(true);
    if (preempt_due()) {
        notice_late();
    }
}

// -- called by MicroPython

void gc_collect(void) {
    if (state.phase != NONE) {
        return; // in the middle of another collection: the allocation fails
    }
    collect_statistics.count++;
    if (state.allocating == 0 && preempt_at != 0) {
        collect_yielding();
        return;
    }
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
    room_collected(false);
    budget_collected(false);
}

// allocated() -> hpa of the word that counts the blocks of 128 bytes allocated since the last collection.
static mp_obj_t mod_allocated(void) {
    return mp_obj_new_int_from_uint((uintptr_t)&MP_STATE_MEM(gc_alloc_amount));
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_allocated_obj, mod_allocated);

// heap() -> (size, free, allocated), in bytes: of the heap, of its end that is free at least, since the last
// collection. gc.mem_free() would visit every block.
static mp_obj_t mod_heap(void) {
    const mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    size_t blocks = area->gc_alloc_table_byte_len * HEAP_BLOCKS_PER_BYTE;
    mp_obj_t sizes[] = {
        mp_obj_new_int_from_uint(blocks * BLOCK),
        mp_obj_new_int_from_uint((blocks - 1 - area->gc_last_used_block) * BLOCK),
        mp_obj_new_int_from_uint(MP_STATE_MEM(gc_alloc_amount) * BLOCK),
    };
    return mp_obj_new_tuple(MP_ARRAY_SIZE(sizes), sizes);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_heap_obj, mod_heap);
