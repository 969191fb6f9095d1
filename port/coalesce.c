// Coalescing of host interrupts (coalesce.h): what is decided when one waits.
#include "port/coalesce.h"
#include "port/vmxops.h"

static bool goes_first(const vcpu_frame_t *f) {
    return f->priority != 0 && f->stopped == 0 &&
           (op_rdtsc() - f->last_due < COALESCE_TICKS ||
               (vmx_get(VM_ENTRY_INTERRUPTION_INFORMATION) & INFO_VALID));
}

bool coalesce_service(const vcpu_frame_t *f) {
    vmx_cpu.holdoff = COALESCE_TICKS;
    if (!(host_attention & ATTENTION_PUT_OFF) && goes_first(f)) {
        host_attention |= ATTENTION_PUT_OFF;
        return false;
    }
    host_attention = 0;
    return true;
}
