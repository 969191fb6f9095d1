// Coalescing of host interrupts (coalesce.h): what is decided when one waits.
#include "port/coalesce.h"
#include "port/vmxops.h"

#define PUT_OFF_MOST (4) // times, one soon after the other
#define PUT_OFF_SOON                                                                               \
    (5 * COALESCE_TICKS) // a guest may have halted, and a line run, before the service

static struct {
    uint64_t last; // host TSC
    uint32_t times;
} put_off;

static bool goes_first(const vcpu_frame_t *f, uint64_t now) {
    if (f->priority == 0 || f->stopped != 0 ||
        (now - f->last_due >= COALESCE_TICKS &&
            !(vmx_get(VM_ENTRY_INTERRUPTION_INFORMATION) & INFO_VALID))) {
        return false;
    }
    if (!(host_attention & ATTENTION_PUT_OFF) || now - put_off.last > PUT_OFF_SOON) {
        put_off.times = 0;
    }
    return put_off.times < PUT_OFF_MOST;
}

bool coalesce_service(const vcpu_frame_t *f) {
    vmx_cpu.holdoff = COALESCE_TICKS;
    uint64_t now = op_rdtsc();
    if (goes_first(f, now)) {
        put_off.last = now;
        put_off.times++;
        host_attention |= ATTENTION_PUT_OFF;
        return false;
    }
    host_attention = 0;
    return true;
}
