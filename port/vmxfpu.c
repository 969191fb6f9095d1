// FPU ownership. A guest's x87, SSE, AVX, AVX-512 and PKRU state stays in the
// registers across exits. HOST_CR0.TS makes the monitor's first floating-point
// instruction after an exit trap (#NM); only then is the guest's state saved, and it
// is restored before that guest's next entry. XCR0 follows the owner.

#include <string.h>
#include "py/obj.h"
#include "port/trap.h"
#include "port/vmxops.h"
#include "port/vcpu.h"

#define SSE_AND_AVX (XCR0_SSE | XCR0_AVX)

static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    __asm volatile("cpuid"
                   : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                   : "a"(leaf), "c"(subleaf));
}

// All state components of the CPU that fit the save area; 0 where there is no XSAVE.
uint64_t vmx_all_xcr0(void) {
    if (!(op_get_cr4() & CR4_OSXSAVE)) {
        return 0;
    }
    uint32_t r[4];
    cpuid(0xd, 0, r);
    uint64_t offered = (uint64_t)r[3] << 32 | r[0];
    uint64_t usable = offered & (XCR0_X87 | XCR0_SSE);
    for (uint32_t i = 2; i < 63; i++) {
        if (offered >> i & 1) {
            cpuid(0xd, i, r); // EAX: size, EBX: offset
            if (r[1] + r[0] <= VCPU_XSAVE_PAGES * 4096) {
                usable |= 1ull << i;
            }
        }
    }
    return usable;
}

// Whether XSAVEC stores components where the compacted format has them. Bochs 2.7 counts SSE state among the compacted
// components, and XRSTOR then finds AVX-512 state in the wrong place; its XSAVES has the same fault.
bool vmx_compaction_works(void) {
    uint32_t r[4];
    if ((vmx_cpu.xcr0 & SSE_AND_AVX) != SSE_AND_AVX) {
        return false;
    }
    cpuid(0xd, 1, r);
    if (!(r[0] & CPUID_D_1_EAX_XSAVEC)) {
        return false;
    }
    static struct {
        uint8_t legacy[24];
        uint32_t mxcsr;
        uint8_t more[484];
        uint64_t xstate_bv, others[7];
        uint8_t avx[256];
    } in __attribute__((aligned(64))), out __attribute__((aligned(64)));
    memset(&in, 0, sizeof(in));
    memset(&out, 0, sizeof(out));
    memset(in.avx, 0x5a, sizeof(in.avx));
    in.mxcsr = MXCSR_RESET;
    in.xstate_bv = SSE_AND_AVX;
    __asm volatile("clts");
    op_xsetbv(vmx_cpu.xcr0);
    __asm volatile("xrstor64 %0" ::"m"(in), "a"(SSE_AND_AVX), "d"(0));
    __asm volatile("xsavec64 %0" : "+m"(out) : "a"(SSE_AND_AVX), "d"(0));
    in.xstate_bv = 0;
    __asm volatile("xrstor64 %0" ::"m"(in), "a"(SSE_AND_AVX), "d"(0));
    return memcmp(out.avx, in.avx, sizeof(in.avx)) == 0;
}

static void save(vcpu_frame_t *frame) {
    if (vmx_cpu.xcr0 != 0) {
        op_xsetbv(vmx_cpu.xcr0);
        __asm volatile("xsave64 %0" : "+m"(frame->xsave) : "a"(-1), "d"(-1));
    } else {
        __asm volatile("fxsave64 %0" : "+m"(frame->xsave));
    }
}

// The registers have no owner: they get the values of the monitor.
static void disown(void) {
    const uint32_t mxcsr = MXCSR_RESET;
    vmx_cpu.fpu_owner = NULL;
    __asm volatile("fninit; ldmxcsr %0" ::"m"(mxcsr));
}

// XRSTOR and XSETBV can fault, on values that a policy has written into the frame. The registers have no owner by then,
// so that the next guest to be entered loads its own.
void vmx_fpu_acquire(vcpu_frame_t *frame) {
    __asm volatile("clts");
    if (vmx_cpu.fpu_owner != NULL) {
        save(vmx_cpu.fpu_owner);
        disown();
    }
    if (vmx_cpu.xcr0 != 0) {
        op_xsetbv(vmx_cpu.xcr0);
        __asm volatile("xrstor64 %0" ::"m"(frame->xsave), "a"(-1), "d"(-1));
        op_xsetbv(frame->xcr0);
    } else {
        __asm volatile("fxrstor64 %0" ::"m"(frame->xsave));
    }
    vmx_cpu.fpu_owner = frame;
}

// Saves the vCPU's state to frame->xsave, if the registers hold it.
void vmx_fpu_release(vcpu_frame_t *frame) {
    if (vmx_cpu.fpu_owner == frame) {
        __asm volatile("clts");
        save(frame);
        disown();
    }
}

// Sets a vCPU's XCR0. A value that the CPU refuses raises cpu.HostFault and changes nothing. False: a component that
// the CPU lacks, or that has no place in the frame.
bool vmx_fpu_set_xcr0(vcpu_frame_t *frame, uint64_t xcr0) {
    vmx_fpu_release(frame); // the next entry loads the new value
    if (vmx_cpu.xcr0 != 0) {
        if ((xcr0 & ~vmx_cpu.xcr0) != 0) {
            return false;
        }
        uint64_t before = op_xgetbv();
        op_xsetbv(xcr0);
        op_xsetbv(before);
    }
    frame->xcr0 = xcr0;
    return true;
}

// #NM in the monitor. True: the FPU has been released, the instruction can be restarted.
bool vmx_nm_trap(void) {
    if (!(op_get_cr0() & CR0_TS)) {
        return false;
    }
    __asm volatile("clts");
    if (vmx_cpu.fpu_owner != NULL) {
        vmx_fpu_release(vmx_cpu.fpu_owner);
    }
    return true;
}
