// Limits of the heap: cpu.guard() with a limit, cpu.refused(), cpu.collect_at().
//
// A full heap is collected inside an allocation, which cannot be preempted (collect.c). So an
// untrusted call gets at most its limit, and nothing of the last part of the heap. And after many
// allocations the running guest's turn ends, so that the scheduler collects in time.
#include "py/gc.h"
#include "py/mpstate.h"
#include "py/runtime.h"
#include "port/budget.h"
#include "port/heap.h"
#include "port/preempt.h"
#include "port/trap.h"
#include "port/vcpu.h"

#define KEPT_PART     (32) // a call with a limit leaves this part of the heap free
#define GRACE         (16) // blocks after the first refusal: for the exception and its traceback
#define SOON          (4096) // blocks allocated since a collection after which another is worth it
#define AT_LAST       (32768) // after which one runs even if nothing would preempt it
#define LEAST_SOON    (512) // however little is left
#define LEAST_AT_LAST (8192) // late enough for idle time to come first

static budget_t budget = {BUDGET_NONE, 0}; // before budget_init(), too

// For the scheduler (vmm/scheduling/turns.py), in blocks.
static struct {
    uint64_t soon, at_last;
    uint64_t payer; // hpa of the frame of the guest that runs, 0: none does
} limits;

static size_t free_blocks; // when gc_alloc_amount was 0

static size_t blocks_of_heap(void) {
    return MP_STATE_MEM(area).gc_alloc_table_byte_len * (HEAP_BLOCKS_PER_WORD / sizeof(uint64_t));
}

static size_t within(size_t least, size_t blocks, size_t most) {
    blocks = blocks < most ? blocks : most;
    return blocks > least ? blocks : least;
}

static void set_limits(void) {
    size_t kept = blocks_of_heap() / KEPT_PART;
    size_t room = free_blocks > kept ? free_blocks - kept : 0;
    limits.soon = within(LEAST_SOON, room / 8, SOON);
    limits.at_last = within(LEAST_AT_LAST, room / 4, AT_LAST);
}

void budget_init(void) {
    budget = (budget_t){BUDGET_NONE, 0};
    free_blocks = blocks_of_heap();
    limits.payer = 0;
    set_limits();
}

budget_t budget_begin(size_t bytes) {
    budget_t outer = budget;
    budget.left = bytes == 0 ? BUDGET_NONE : bytes / HEAP_BLOCK;
    budget.refused = 0;
    return outer;
}

void budget_end(budget_t outer) {
    budget.left = outer.left;
}

budget_t budget_suspend(void) {
    budget_t suspended = budget;
    budget.left = BUDGET_NONE;
    return suspended;
}

void budget_resume(budget_t suspended) {
    budget = suspended;
}

static unsigned objection(size_t blocks) {
    if (blocks > budget.left) {
        return BUDGET_SPENT;
    }
    size_t wanted = MP_STATE_MEM(gc_alloc_amount) + blocks + blocks_of_heap() / KEPT_PART;
    return wanted > free_blocks && budget.refused == 0 ? BUDGET_FULL : 0;
}

static void refuse(unsigned why) {
    if (budget.refused == 0) {
        budget.refused = why;
        budget.left = GRACE;
    }
}

bool budget_take(size_t blocks) {
    if (budget.left == BUDGET_NONE) {
        return true;
    }
    unsigned why = objection(blocks);
    if (why == 0) {
        budget.left -= blocks;
    } else {
        refuse(why);
    }
    return why == 0;
}

void budget_none(void) {
    refuse(BUDGET_FULL);
}

bool budget_limits(void) {
    return budget.left != BUDGET_NONE;
}

static bool crossed(size_t before, size_t limit) {
    return before <= limit && MP_STATE_MEM(gc_alloc_amount) > limit;
}

void budget_allocated(size_t before) {
    if (limits.payer != 0) {
        size_t now = MP_STATE_MEM(gc_alloc_amount);
        ((vcpu_frame_t *)limits.payer)->allocated += now > before ? now - before : now;
    }
    if (crossed(before, limits.soon) || crossed(before, limits.at_last)) {
        host_attention |= ATTENTION_NEEDED; // the turn ends
    }
}

bool budget_overdue(void) {
    return MP_STATE_MEM(gc_alloc_amount) > limits.at_last;
}

void budget_collected(bool yields) {
    size_t used = heap_words_used();
    size_t free = (heap_words() - used) * HEAP_BLOCKS_PER_WORD;
    for (size_t word = 0; word < used; word++) {
        free += heap_count(heap_free(heap_word(word)));
        if (yields && word % 16 == 0) {
            preempt_look();
        }
    }
    free_blocks = free + MP_STATE_MEM(gc_alloc_amount);
    set_limits();
}

// refused() -> why the last call of guard() or attempt() with a limit was refused memory: 0, it was not; 1, it had used
// up its limit; 2, the heap was nearly full.
static mp_obj_t mod_refused(void) {
    return MP_OBJ_NEW_SMALL_INT(budget.refused);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_refused_obj, mod_refused);

// uncounted(f) -> f(). Its allocations count against no limit: the monitor's own work inside a call that has one.
static mp_obj_t mod_uncounted(mp_obj_t function) {
    budget_t suspended = budget_suspend();
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t answer = mp_call_function_0(function);
        nlr_pop();
        budget_resume(suspended);
        return answer;
    }
    budget_resume(suspended);
    nlr_jump(nlr.ret_val);
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_uncounted_obj, mod_uncounted);

// heap_free() -> bytes of the heap that are free at least: those after the last collection, less what was allocated
// since. gc.mem_free() would visit every block, without a preemption point.
static mp_obj_t mod_heap_free(void) {
    size_t taken = MP_STATE_MEM(gc_alloc_amount);
    return mp_obj_new_int_from_uint((free_blocks > taken ? free_blocks - taken : 0) * HEAP_BLOCK);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_heap_free_obj, mod_heap_free);

// collect_at() -> hpa of three words of 64 bits: blocks allocated since the last collection from which on another is
// worth it where it can be preempted; those from which on it is due in any case; hpa of the frame of the guest that is
// charged for allocations now, 0 for none.
static mp_obj_t mod_collect_at(void) {
    return mp_obj_new_int_from_uint((uintptr_t)&limits);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_collect_at_obj, mod_collect_at);
