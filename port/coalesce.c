// Coalescing of host interrupts (coalesce.h): what is decided when one waits.
#include "port/coalesce.h"
#include "port/vmxops.h"

// A guest may have halted, and a line run, before the service.
#define PUT_OFF_SOON (5 * COALESCE_TICKS)

typedef struct {
    uint32_t since, last; // low halves of the host TSC; since 0: no service waits
} wait_t;

// Whether a service waits once more: not longer than two of them take. One that was last found to wait more than `soon`
// ago waits anew, as the guest that it waited for may have run meanwhile.
static bool waits(wait_t *wait, uint32_t soon) {
    uint32_t now = op_rdtsc() | 1;
    if (wait->since == 0 || now - wait->last > soon) {
        wait->since = now;
    }
    wait->last = now;
    return now - wait->since < 2 * SERVICE_TICKS;
}

static bool goes_first(const vcpu_frame_t *f) {
    static wait_t put_off;
    if (f->priority == 0 || f->stopped != 0 ||
        (op_rdtsc() - f->last_due >= COALESCE_TICKS &&
            !(vmx_get(VM_ENTRY_INTERRUPTION_INFORMATION) & INFO_VALID))) {
        return false;
    }
    if (!(host_attention & ATTENTION_PUT_OFF)) {
        put_off.since = 0;
    }
    return waits(&put_off, PUT_OFF_SOON);
}

bool coalesce_service(const vcpu_frame_t *f) {
    vmx_cpu.holdoff = COALESCE_TICKS;
    if (goes_first(f)) {
        host_attention |= ATTENTION_PUT_OFF;
        return false;
    }
    host_attention = 0;
    return true;
}

// waits(wait_hva, soon) -> whether a service between turns waits once more, by the two words there; the caller clears
// the first when it does not.
static mp_obj_t mod_waits(mp_obj_t wait, mp_obj_t soon) {
    return mp_obj_new_bool(
        waits((wait_t *)mp_obj_get_int_truncated(wait), mp_obj_get_int_truncated(soon)));
}
MP_DEFINE_CONST_FUN_OBJ_2(coalesce_waits_obj, mod_waits);
