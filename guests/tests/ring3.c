/* Ring 3: what it may not do, and what it may by leave of the TSS (SDM Vol. 3A, "Protection"; Vol. 1,
 * "Input/Output"). */
#include "test.h"

#if PAGED
#include "descriptors.h"
#include "user.h"

#define PLAIN 2u /* flags, IF clear */
#define DONE  "int $0x33"

USER_CODE(do_cli, "cli; " DONE);
USER_CODE(do_hlt, "hlt; " DONE);
USER_CODE(do_cr0, "mov %cr0, %" REG_AX "; " DONE);
USER_CODE(do_wrmsr, "mov $0x10, %ecx; wrmsr; " DONE);
USER_CODE(do_invd, "invd; " DONE);
USER_CODE(do_int, "int $0x30; " DONE);
USER_CODE(do_int3, "int3; " DONE);
USER_CODE(do_rdtsc, "rdtsc; " DONE);
USER_CODE(do_cpuid, "xor %eax, %eax; cpuid; " DONE);
USER_CODE(do_in, "mov $0x3ff, %edx; in %dx, %al; " DONE);
USER_CODE(do_inw, "mov $0x3ff, %edx; in %dx, %ax; " DONE);
USER_CODE(do_ins, "mov $0x3ff, %edx; lea -64(%" REG_SP "), %" REG_DI "; insb; " DONE);
USER_CODE(
    do_outs, "mov $0x3ff, %edx; mov %" REG_SP ", %" REG_SI "; sub $8, %" REG_SI "; outsb; " DONE);
USER_CODE(do_unaligned, "mov -7(%" REG_SP "), %eax; " DONE);
USER_CODE(do_ud2, "ud2; " DONE);
USER_CODE(do_vmcall, ".byte 0x0f, 0x01, 0xc1; " DONE);

#define RUN(snippet, flags) user_run(snippet##_start, snippet##_end, flags, 0)

static void privileged(void) {
    RUN(do_cli, PLAIN);
    check_trap("CLI is #GP", GP, 0);
    RUN(do_hlt, PLAIN);
    check_trap("HLT is #GP", GP, 0);
    RUN(do_cr0, PLAIN);
    check_trap("MOV from CR0 is #GP", GP, 0);
    RUN(do_wrmsr, PLAIN);
    check_trap("WRMSR is #GP", GP, 0);
    RUN(do_invd, PLAIN);
    check_trap("INVD is #GP", GP, 0);
    RUN(do_ud2, PLAIN);
    check_trap("UD2 is #UD", UD, 0);
    RUN(do_cpuid, PLAIN);
    check_trap("CPUID is allowed", VECTOR_USER, 0);
    RUN(do_int, PLAIN);
    excuse(on_tcg() && LONG64, TRAP(GP, VECTOR_INT * 16 + 2),
        "TCG numbers IDT entries by 16 bytes in the error code");
    check_trap("INT through a gate of ring 0 is #GP", GP, VECTOR_INT * 8 + 2);
    RUN(do_int3, PLAIN);
    check_trap("INT3 through a gate of ring 3 is #BP", BP, 0);
    word cr4 = read_cr4();
    RUN(do_rdtsc, PLAIN);
    check_trap("RDTSC is allowed", VECTOR_USER, 0);
    write_cr4(cr4 | CR4_TSD);
    RUN(do_rdtsc, PLAIN);
    write_cr4(cr4);
    check_trap("RDTSC with CR4.TSD is #GP", GP, 0);
}

/* Opens the ports 3F8H to 3FFH, or 3FFH alone, or nothing. */
static void open_ports(u8 closed) {
    tss.bitmap[0x3f8 / 8] = closed;
}

static void ports(void) {
    RUN(do_in, PLAIN);
    check_trap("IN with IOPL 0 and no leave is #GP", GP, 0);
    RUN(do_ins, PLAIN);
    check_trap("INS with IOPL 0 and no leave is #GP", GP, 0);
    RUN(do_outs, PLAIN);
    check_trap("OUTS with IOPL 0 and no leave is #GP", GP, 0);
    open_ports(0x7f);
    RUN(do_in, PLAIN);
    check_trap("IN by leave of the TSS", VECTOR_USER, 0);
    RUN(do_ins, PLAIN);
    check_trap("INS by leave of the TSS", VECTOR_USER, 0);
    RUN(do_outs, PLAIN);
    check_trap("OUTS by leave of the TSS", VECTOR_USER, 0);
    RUN(do_inw, PLAIN);
    check_trap("a word IN needs leave for both ports", GP, 0);
    open_ports(0xff);
    RUN(do_in, PLAIN | 0x3000);
    check_trap("IN with IOPL 3", VECTOR_USER, 0);
    RUN(do_cli, PLAIN | 0x3000);
    check_trap("CLI with IOPL 3", VECTOR_USER, 0);
}

static void alignment(void) {
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_AM);
    RUN(do_unaligned, PLAIN | FLAGS_AC);
    excuse(on_tcg(), TRAP(VECTOR_USER, 0), "TCG does not check alignment");
    check_trap("an unaligned read with AC is #AC", AC, 0);
    RUN(do_unaligned, PLAIN);
    check_trap("and without AC is none", VECTOR_USER, 0);
    write_cr0(cr0);
    RUN(do_unaligned, PLAIN | FLAGS_AC);
    check_trap("nor without CR0.AM", VECTOR_USER, 0);
}

void test_ring3(void) {
    privileged();
    ports();
    alignment();
    RUN(do_vmcall, PLAIN);
    excuse(cpuid(1, 0).ecx >> 31, TRAP(VECTOR_USER, 0), "a hypervisor takes it");
    check_trap("VMCALL is #UD", UD, 0);
}
#else
void test_ring3(void) {
    skip("all", "no rings in real mode");
}
#endif
