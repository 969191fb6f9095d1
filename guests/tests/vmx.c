/* VMX instructions in a guest (SDM Vol. 3C, "VMX Instruction Reference"). Outside VMX operation all are #UD, and a
 * guest cannot enter it: either CPUID hides VMX and CR4.VMXE is reserved, or, on the bare engine, both are
 * there and VMXON is #UD until CR4.VMXE is set. */
#include "test.h"

#define HYPERVISOR "a hypervisor takes it"

static u64 region;

static void instructions(void) {
    ATTEMPT("vmxon %0", : : "m"(region));
    check_trap("VMXON is #UD", UD, 0);
    ATTEMPT("vmxoff", :);
    check_trap("VMXOFF is #UD", UD, 0);
    ATTEMPT("vmlaunch", :);
    check_trap("VMLAUNCH is #UD", UD, 0);
    ATTEMPT("vmresume", :);
    check_trap("VMRESUME is #UD", UD, 0);
    ATTEMPT("vmclear %0", : : "m"(region));
    check_trap("VMCLEAR is #UD", UD, 0);
    ATTEMPT("vmptrld %0", : : "m"(region));
    check_trap("VMPTRLD is #UD", UD, 0);
    ATTEMPT("vmptrst %0", : "=m"(region));
    check_trap("VMPTRST is #UD", UD, 0);
    ATTEMPT("vmread %%" REG_AX ", %%" REG_DX, : : : REG_AX, REG_DX);
    check_trap("VMREAD is #UD", UD, 0);
    ATTEMPT("vmwrite %%" REG_AX ", %%" REG_DX, : : "a"((word)0), "d"((word)0));
    check_trap("VMWRITE is #UD", UD, 0);
#if PAGED
    ATTEMPT("invept %0, %%" REG_AX, : : "m"(region), "a"((word)1));
    check_trap("INVEPT is #UD", UD, 0);
    ATTEMPT("invvpid %0, %%" REG_AX, : : "m"(region), "a"((word)1));
    check_trap("INVVPID is #UD", UD, 0);
#endif
    ATTEMPT(".byte 0x0f, 0x01, 0xd4", : : "a"(0), "c"(0));
    check_trap("VMFUNC is #UD", UD, 0);
    ATTEMPT(".byte 0x0f, 0x01, 0xc1", : : "a"(0x7fffffff) : "memory");
    excuse(cpuid(1, 0).ecx >> 31, NO_TRAP, HYPERVISOR);
    check_trap("VMCALL is #UD", UD, 0);
}

static void getsec(void) {
    ATTEMPT(".byte 0x0f, 0x37", : : "a"(0), "b"(0) : "ecx", "edx", "memory");
    check_trap("GETSEC without CR4.SMXE is #UD", UD, 0);
}

/* With CR4.VMXE set, where it may be: VMXON still needs protected mode, and the others VMX operation. */
static void enabled(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_VMX)) {
        skip("VMREAD outside VMX operation is #UD with CR4.VMXE too", "no VMX");
        return;
    }
    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_VMXE);
    ATTEMPT("vmread %%" REG_AX ", %%" REG_DX, : : : REG_AX, REG_DX);
    write_cr4(cr4);
    check_trap("VMREAD outside VMX operation is #UD with CR4.VMXE too", UD, 0);
}

void test_vmx(void) {
    instructions();
    getsec();
    enabled();
}
