// Records and measures of exits, for a vCPU whose frame has `recorded` set. vmm/vtx/recording.py declares their layout
// and reads them. An exit's duration is known when the guest is entered again, or when the exit loop ends: so a record
// is written at the exit and closed at the next one.
#ifndef PCANEL_TRACE_H
#define PCANEL_TRACE_H

#include "port/vcpu.h"

#define TRACE_LONGEST (TRACE_UNKNOWN_DURATION - 1)

// One exit.
typedef struct {
    uint64_t tsc; // host TSC at the exit
    uint64_t rip;
    uint64_t qualification;
    uint64_t rax;
    uint64_t rcx_rdx; // low halves: the number of an MSR, and the high half of its value
    uint64_t gpa; // of EPT violations
    union {
        uint32_t duration; // host TSC ticks
        uint64_t duration_intr_info; // and in the high half the information of an exception
    };
    union {
        struct {
            uint16_t reason;
            uint16_t verdict;
            uint8_t slot; // of the dispatch table
            uint8_t length; // of the instruction
            uint16_t reserved;
        };
        uint64_t rest;
    };
} trace_record_t;
_Static_assert(sizeof(trace_record_t) == TRACE_RECORD_SIZE, "vmm/vtx/recording.py says so");

// The costs of the exits by one slot. Bucket b < 8: b ticks; above, eight buckets cover each power of two.
typedef struct {
    uint64_t ticks;
    uint64_t longest;
    uint32_t bucket[TRACE_BUCKETS];
} trace_slot_t;
_Static_assert(sizeof(trace_slot_t) == TRACE_SLOT_SIZE, "vmm/vtx/recording.py says so");

static inline uint64_t trace_bucket(uint64_t ticks) {
    if (ticks < 8) {
        return ticks;
    }
    if (MP_UNLIKELY(ticks >> TRACE_BUCKET_BITS)) {
        return TRACE_BUCKETS - 1;
    }
    uint64_t power = 63 - __builtin_clzll(ticks);
    return (power - 2) * 8 + ((ticks >> (power - 3)) & 7);
}

// Adds the cost of an exit by this slot.
static inline __attribute__((always_inline)) void trace_measure(
    uint64_t measured, uint64_t slot, uint64_t cost) {
    trace_slot_t *sums = (trace_slot_t *)measured + slot;
    sums->ticks += cost;
    if (MP_UNLIKELY(cost > sums->longest)) {
        sums->longest = cost;
    }
    sums->bucket[trace_bucket(cost)]++;
}

// Ends the exit before this one: its cost is the growth of host_ticks. Ticks charged after the exit loop ended (the
// beginning of a turn, the service of host interrupts) belong to no exit.
static inline __attribute__((always_inline)) void trace_close(vcpu_frame_t *f) {
    uint64_t host = f->host_ticks;
    uint64_t cost = host - f->trace_host;
    f->trace_host = host;
    trace_record_t *open = (trace_record_t *)f->trace_open;
    if (open != NULL) {
        open->duration = cost < TRACE_LONGEST ? cost : TRACE_LONGEST;
        f->trace_open = 0;
    }
    uint64_t slot = f->measured_slot;
    if (slot != 0) {
        trace_measure(f->measured, slot - 1, cost);
        f->measured_slot = 0;
    } else if (open == NULL) {
        f->trace_between += cost;
    }
}

// An exit, before its handler is called.
static inline __attribute__((always_inline)) void trace_exit(
    vcpu_frame_t *f, uint64_t reason, uint64_t slot) {
    trace_close(f);
    if (f->measured != 0) {
        f->measured_slot = slot + 1;
    }
    uint64_t ring = f->trace_ring;
    if (ring != 0) {
        uint64_t head = f->trace_head;
        trace_record_t *record = (trace_record_t *)ring + (head & f->trace_mask);
        f->trace_head = head + 1;
        f->trace_open = (uint64_t)record;
        record->tsc = f->exit_tsc;
        record->rip = f->rip;
        record->qualification = f->qualification;
        record->rax = f->gpr[0];
        record->rcx_rdx = (uint32_t)f->gpr[1] | f->gpr[2] << 32;
        record->gpa = f->gpa;
        record->duration_intr_info = TRACE_UNKNOWN_DURATION | f->intr_info << 32;
        record->rest = reason | TRACE_UNKNOWN_VERDICT << 16 | slot << 32 | f->length << 40;
    }
}

// The handler's answer. The handler may have ended the recording.
static inline __attribute__((always_inline)) void trace_verdict(vcpu_frame_t *f, uint64_t verdict) {
    trace_record_t *open = (trace_record_t *)f->trace_open;
    if (open != NULL) {
        open->verdict = verdict;
    }
}
#endif
