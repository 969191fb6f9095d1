// The vCPU frame and the native type in front of it.
//
// The frame is a page outside the GC heap, with the XSAVE area behind it. vmm/vtx/frame.py
// declares its layout, its bits and the slots of the dispatch table: port/header.py puts them
// into shared_constants.h, and each member's offset is asserted below.
#ifndef PCANEL_VCPU_H
#define PCANEL_VCPU_H

#include "py/obj.h"

#include "shared_constants.h"

#define VCPU_TIMERS      (16)
#define VCPU_XSAVE_PAGES (3)

// Keys: a hash table with open addressing. Extra entries follow the highest index, so that no
// search wraps around; the very last one is empty (slot 0). vmm/vtx/keys.py makes it.
typedef struct {
    uint32_t key;
    uint32_t slot; // of the dispatch table
    uint32_t datum; // for frame->datum
    uint32_t reserved;
} vcpu_key_t;
typedef struct {
    uint32_t offset; // of a 64-bit word of the frame
    uint32_t mask; // which of its low bits are the key
    uint32_t shift; // 32 - log2 of the entries
    uint32_t scaled; // the same for offsets in bytes: shift - 4
    vcpu_key_t entry[];
} vcpu_keys_t;

typedef struct {
    uint32_t index;
    uint32_t reserved;
    uint64_t value;
} vcpu_msr_t;

typedef struct {
    uint64_t gpr[16]; // 0x000  in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
    uint64_t rip; // 0x080
    uint64_t rflags; // 0x088
    uint64_t reason; // 0x090  basic exit reason, below VCPU_REASONS
    uint64_t qualification; // 0x098
    uint64_t length; // 0x0a0
    uint64_t linear; // 0x0a8  these seven only where wants[reason] has their bit
    uint64_t gpa; // 0x0b0
    uint64_t intr_info; // 0x0b8
    uint64_t intr_error; // 0x0c0
    uint64_t vectoring_info; // 0x0c8
    uint64_t vectoring_error; // 0x0d0
    uint64_t instr_info; // 0x0d8
    uint64_t entry_info; // 0x0e0  written to the VMCS while FRAME_DIRTY_ENTRY is dirty
    uint64_t entry_error; // 0x0e8
    uint64_t entry_length; // 0x0f0
    uint64_t dirty; // 0x0f8
    uint64_t verdict; // 0x100  bit 0: advance RIP before the next entry
    union {
        struct {
            uint32_t pending; // 0x108  not 0: VCPU_SLOT_PENDING is called before the entry
            uint32_t written; // 0x10c  not 0: VCPU_SLOT_WRITTEN is called instead (written.c)
        };
        uint64_t pending_or_written;
    };
    uint64_t
        deadline; // 0x110  host TSC at which the preemption timer fires, 0 = off; recomputed after FRAME_DIRTY_TIMERS
    uint64_t exit_tsc; // 0x118  0 once the exit has been charged
    uint64_t entry_tsc; // 0x120
    uint64_t guest_ticks; // 0x128  host TSC ticks spent in the guest
    uint64_t cr2; // 0x130  valid while another vCPU is loaded
    uint64_t dr[4]; // 0x138
    uint64_t dr6; // 0x158
    uint64_t xcr0; // 0x160
    uint64_t host_rsp; // 0x168  what HOST_RSP holds
    uint64_t launched; // 0x170
    uint64_t timer_shift; // 0x178  IA32_VMX_MISC[4:0], or 64: no preemption timer
    uint64_t host_ticks; // 0x180  host TSC ticks from exits to the next entries
    uint64_t
        min_run; // 0x188  least run before the preemption timer fires, in host TSC ticks; ~0: as long as this exit cost
    uint64_t datum; // 0x190  of the key by which the handler was found
    uint64_t tsc_offset; // 0x198  written to the VMCS while FRAME_DIRTY_TSC_OFFSET is dirty
    uint64_t clock_offset; // 0x1a0  guest's clock minus host TSC
    uint64_t slice_end; // 0x1a8  host TSC at which the guest's turn ends, 0: never
    uint64_t timers; // 0x1b0  entries of timer[] in use
    uint64_t outcome; // 0x1b8  vmm/handlers/io.py
    uint64_t
        controls; // 0x1c0  primary processor-based ones, written while FRAME_DIRTY_CONTROLS is dirty
    uint64_t
        rvi; // 0x1c8  requesting virtual interrupt, raised to this while FRAME_DIRTY_RVI is dirty
    uint64_t interruptibility; // 0x1d0  at the exit, and for VCPU_SLOT_PENDING
    uint64_t pending_debug; // 0x1d8  for VCPU_SLOT_PENDING
    uint64_t nmis; // 0x1e0  vmm/vtx/events.py
    uint64_t cr3; // 0x1e8  these two only where wants[reason] has their bit
    uint64_t cs_rights; // 0x1f0
    uint64_t
        virtual_apic; // 0x1f8  hpa of the virtual-APIC page where the CPU delivers what its IRR holds, else 0
    uint32_t wants[VCPU_REASONS]; // 0x200  words to read at an exit of this reason
    uint64_t count[VCPU_REASONS]; // 0x340  exits of this reason
    uint64_t ticks[VCPU_REASONS]; // 0x5c0  host TSC ticks that they cost
    vcpu_msr_t msr[VCPU_MSRS]; // 0x840  live in the CPU while this vCPU is loaded; index 0 ends
    uint32_t keys[VCPU_REASONS]; // 0x940  hpa of the reason's keys, 0: none
    uint64_t timer[VCPU_TIMERS]; // 0xa80  deadlines by the guest's clock, 0: off
    // The scheduler's words (vmm/scheduling/sched.py).
    uint64_t state; // 0xb00
    uint64_t priority; // 0xb08
    uint64_t turn; // 0xb10
    uint64_t share; // 0xb18
    uint64_t wakes; // 0xb20
    uint64_t late; // 0xb28  host TSC ticks from timers' deadlines to entries, in all
    uint64_t latest; // 0xb30
    uint64_t due; // 0xb38  host TSC of the deadline that the next entry serves, 0: none
    uint64_t apic_page; // 0xb40
    uint64_t next; // 0xb48
    uint64_t starts; // 0xb50
    uint64_t lead; // 0xb58  host TSC ticks by which the guest is woken before its deadlines
    uint64_t timed; // 0xb60  entries for a timer's deadline
    uint64_t last_due; // 0xb68  the deadline before
    uint64_t
        completed; // 0xb70  an instruction was completed for the guest while DR7 enables a breakpoint
    uint64_t dr7; // 0xb78  only where wants[reason] asks
    uint64_t allocated; // 0xb80  blocks of the heap since the last collection
    uint64_t parked; // 0xb88  bits of timer[]
    uint64_t cs_base; // 0xb90  these six only where wants[reason] has their bit
    uint64_t cr0; // 0xb98  as the CPU has it, not as the guest sees it
    uint64_t cr4; // 0xba0
    uint64_t entry_controls; // 0xba8
    uint64_t ss_rights; // 0xbb0
    uint64_t cr0_shadow; // 0xbb8
    uint64_t
        sibling; // 0xbc0  hpa of the frame of the guest's next vCPU, in a ring; 0: it has no other
    uint64_t ordered; // 0xbc8  the guest's interleave says which of its vCPUs runs
    uint64_t lstar; // 0xbd0  the guest's IA32_LSTAR while the CPU has the monitor's
    uint64_t task; // 0xbd8  these four are of vmm/insight/linux/current.py
    uint64_t task_known; // 0xbe0
    uint64_t task_pid; // 0xbe8
    uint64_t task_comm; // 0xbf0
    uint64_t stepped; // 0xbf8  an instruction is being stepped (vmm/policies/stepper.py)
    uint64_t stored[64]; // 0xc00  MSRs stored in the frame (vmm/handlers/msr.py)
    uint64_t recorded; // 0xe00  exits are recorded or measured: what follows is in use (trace.h)
    uint64_t trace_ring; // 0xe08  hpa of the records, 0: exits are not recorded
    uint64_t trace_mask; // 0xe10  records in the ring, minus 1
    uint64_t trace_head; // 0xe18  records written so far
    uint64_t trace_open; // 0xe20  hpa of the record whose duration is not known yet, else 0
    uint64_t trace_host; // 0xe28  host_ticks when that exit occurred
    uint64_t measured; // 0xe30  hpa of the slots' distributions, 0: exits are not measured
    uint64_t measured_slot; // 0xe38  1 + the slot whose exit is not over yet, else 0
    uint64_t trace_between; // 0xe40  host_ticks of no recorded or measured exit
    uint64_t stopped; // 0xe48  host TSC since which its clock stands still (stops.py), 0: it runs
    uint64_t unseen; // 0xe50  ticks of a stop's exit and entry that the guest would see
    uint64_t reserved3[0x25]; // 0xe58
    // The VMCS's MSR areas (vmm/handlers/spec_msrs.py).
    vcpu_msr_t guest_msrs[4]; // 0xf80  loaded by entries, stored by exits
    vcpu_msr_t host_msrs[4]; // 0xfc0  loaded by exits
    uint8_t xsave[VCPU_XSAVE_PAGES * 4096] __attribute__((aligned(64))); // 0x1000
} vcpu_frame_t;

#define VCPU_MEMBER(member, offset)                                                                \
    _Static_assert(                                                                                \
        offsetof(vcpu_frame_t, member) == (offset), "vmm/vtx/frame.py differs: " #member);
VCPU_FRAME_MEMBERS(VCPU_MEMBER)
#undef VCPU_MEMBER
_Static_assert(sizeof(vcpu_frame_t) == VCPU_FRAME_SIZE, "vmm/vtx/frame.py differs: SIZE");

typedef struct {
    mp_obj_base_t base;
    vcpu_frame_t *frame;
    uint64_t vmcs; // hpa
    mp_obj_t *table; // VCPU_SLOTS handlers
    mp_obj_t table_obj; // the list that holds them, for the collector
    mp_obj_t cls; // Python class that supplies methods and properties
    mp_obj_t members; // dict: attributes that Python sets
} vcpu_t;

// What one logical CPU has loaded.
typedef struct {
    vcpu_t *loaded; // its VMCS is current and its MSRs, CR2, DRs are in the CPU
    uint64_t holdoff; // host TSC ticks that guests run before the next host interrupt is serviced
    vcpu_frame_t *fpu_owner; // whose state is in the FPU registers; NULL: the monitor's
    uint64_t xcr0; // all that the CPU offers; 0: no XSAVE
    uint32_t flaws; // of bochs27.h
    bool vmxon;
    uint32_t mitigations; // VCPU_MITIGATE_...
    int (*guest)(vcpu_frame_t *frame); // the way in: one of vmx.S
    const vcpu_frame_t *ran; // of the vCPU that was entered last
} vmx_cpu_t;

extern const mp_obj_type_t vcpu_type;
extern const mp_obj_base_t vcpu_enter_obj;
MP_DECLARE_CONST_FUN_OBJ_1(vcpu_earliest_obj);
MP_DECLARE_CONST_FUN_OBJ_0(vcpu_host_state_obj);
MP_DECLARE_CONST_FUN_OBJ_1(vcpu_mitigate_obj);
MP_DECLARE_CONST_FUN_OBJ_2(vcpu_read_obj);
MP_DECLARE_CONST_FUN_OBJ_1(vcpu_tables_obj);
MP_DECLARE_CONST_FUN_OBJ_3(vcpu_write_obj);
MP_DECLARE_CONST_FUN_OBJ_2(vcpu_want_obj);
MP_DECLARE_CONST_FUN_OBJ_1(vmx_names_obj);

extern vmx_cpu_t vmx_cpu;

// vmx.S. Enters the guest with the frame's GPRs; returns after the exit with 0,
// or 1 for VMfailInvalid, 2 for VMfailValid. Interrupts are off on both sides.
int vmx_guest(vcpu_frame_t *frame);
int vmx_guest_verw(vcpu_frame_t *frame);
// HOST_RIP is one of these.
void vmx_exit(void);
void vmx_exit_clear(void);
void vmx_exit_call(void);
void vmx_exit_fill(void);

// vcpu_load.c: which vCPU is loaded. Putting it away saves its live registers in its frame.
void vcpu_put_away(void);
void vcpu_load(vcpu_t *self);
static inline void vcpu_need_loaded(vcpu_t *self) {
    if (vmx_cpu.loaded != self) {
        vcpu_load(self);
    }
}

// vcpu_enter.c: advancing moves RIP past the instruction that exited.
void vcpu_advance(vcpu_t *self);
// Reads words of the frame, by their bits in wants[].
void vcpu_want(vcpu_t *self, uint32_t wants);
// Charges the cost of the last exit up to now, once.
void vcpu_count_ticks(vcpu_frame_t *frame, uint64_t now);

// vmxfpu.c: the owner of the FPU registers.
uint64_t vmx_all_xcr0(void);
bool vmx_compaction_works(void);
void vmx_fpu_acquire(vcpu_frame_t *frame);
void vmx_fpu_release(vcpu_frame_t *frame);
bool vmx_fpu_set_xcr0(vcpu_frame_t *frame, uint64_t xcr0);
#endif
