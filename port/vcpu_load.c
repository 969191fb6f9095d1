// Loading a vCPU: its VMCS becomes current, and its CR2, debug registers and MSRs are moved to the CPU. Those of all
// other vCPUs are in their frames.

#include "py/runtime.h"
#include "port/vmxops.h"
#include "port/vcpu.h"

static void live_to_frame(vcpu_frame_t *f) {
    f->cr2 = op_get_cr2();
    f->dr[0] = op_get_dr0();
    f->dr[1] = op_get_dr1();
    f->dr[2] = op_get_dr2();
    f->dr[3] = op_get_dr3();
    f->dr6 = op_get_dr6();
    for (vcpu_msr_t *m = f->msr; m < f->msr + VCPU_MSRS && m->index != 0; m++) {
        m->value = op_rdmsr(m->index);
    }
}

static void frame_to_live(const vcpu_frame_t *f) {
    op_set_cr2(f->cr2);
    op_set_dr0(f->dr[0]);
    op_set_dr1(f->dr[1]);
    op_set_dr2(f->dr[2]);
    op_set_dr3(f->dr[3]);
    op_set_dr6((uint32_t)f->dr6); // the high half must be 0, and vcpu.debug() allows any value
    for (const vcpu_msr_t *m = f->msr; m < f->msr + VCPU_MSRS && m->index != 0; m++) {
        op_wrmsr(m->index, m->value);
    }
}

void vcpu_put_away(void) {
    if (vmx_cpu.loaded != NULL) {
        live_to_frame(vmx_cpu.loaded->frame);
        vmx_cpu.loaded = NULL;
    }
}

void vcpu_load(vcpu_t *self) {
    vmx_need_root("VMPTRLD");
    vcpu_put_away();
    vmx_check("VMPTRLD", vmx_vmptrld(self->vmcs));
    frame_to_live(self->frame);
    vmx_cpu.loaded = self;
}
