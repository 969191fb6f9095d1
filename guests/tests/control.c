/* MOV to and from control registers, LMSW, SMSW, CLTS (SDM Vol. 3A, "Control Registers"). */
#include "test.h"

#define TCG_CR4 "QEMU 7.2's TCG never ends a MOV to CR4 that it refuses"
#define TCG_CR0 "TCG does not check CR0"

#define DEFINE_ATTEMPT(n)                                                                          \
    static void attempt_cr##n(word value) {                                                        \
        ATTEMPT("mov %0, %%cr" #n, : : "r"(value) : "memory");                                     \
    }
DEFINE_ATTEMPT(0)
DEFINE_ATTEMPT(4)

/* Sets and clears the bit, and says which of both worked. */
static u32 toggle_cr0(word bit) {
    word old = read_cr0();
    u32 worked = 0;
    attempt_cr0(old | bit);
    worked |= trap.vector == NONE && read_cr0() & bit ? 1 : 0;
    attempt_cr0(old & ~bit);
    worked |= trap.vector == NONE && !(read_cr0() & bit) ? 2 : 0;
    attempt_cr0(old);
    return worked;
}

static u32 toggle_cr4(word bit) {
    word old = read_cr4();
    u32 worked = 0;
    attempt_cr4(old | bit);
    worked |= trap.vector == NONE && read_cr4() & bit ? 1 : 0;
    attempt_cr4(old & ~bit);
    worked |= trap.vector == NONE && !(read_cr4() & bit) ? 2 : 0;
    attempt_cr4(old);
    return worked;
}

static void cr0(void) {
    word old = read_cr0();
    check("CR0.MP toggles", toggle_cr0(CR0_MP), 3);
    check("CR0.EM toggles", toggle_cr0(CR0_EM), 3);
    check("CR0.TS toggles", toggle_cr0(CR0_TS), 3);
    check("CR0.NE toggles", toggle_cr0(CR0_NE), 3);
    check("CR0.WP toggles", toggle_cr0(CR0_WP), 3);
    check("CR0.AM toggles", toggle_cr0(CR0_AM), 3);
    check("CR0.CD toggles", toggle_cr0(CR0_CD), 3);
    attempt_cr0((old | CR0_NW) & ~(word)CR0_CD);
    excuse(on_tcg(), NO_TRAP, TCG_CR0);
    check_trap("CR0 refuses NW without CD", GP, 0);
    attempt_cr0(old);
#if REAL16
    if (on_tcg()) {
        skip("CR0 refuses PG without PE", "TCG starts paging in real mode");
    } else {
        attempt_cr0(old | CR0_PG);
        check_trap("CR0 refuses PG without PE", GP, 0);
        attempt_cr0(old);
    }
#endif
#if LONG64
    attempt_cr0(old | 1ull << 32);
    excuse(on_tcg(), NO_TRAP, TCG_CR0);
    check_trap("CR0 refuses an upper bit", GP, 0);
    attempt_cr0(old);
#endif
    attempt_cr0(old & ~(word)CR0_ET);
    check("CR0.ET stays", read_cr0() & CR0_ET, CR0_ET);
    attempt_cr0(old);
    check("CR0 is as before", read_cr0(), old);
}

static void every_register(void) {
    bool right = true;
    word old = read_cr0(), changed = old ^ CR0_NE;
    word seen, saved;
#define THROUGH(name)                                                                              \
    asm volatile("mov %1, %%" name "; mov %%" name ", %%cr0; xor %%" name ", %%" name              \
                 "; mov %%cr0, %%" name "; mov %%" name ", %0"                                     \
                 : "=m"(seen)                                                                      \
                 : "m"(changed)                                                                    \
                 : name, "memory");                                                                \
    right &= seen == changed;                                                                      \
    write_cr0(old)
    THROUGH(REG_AX);
    THROUGH(REG_BX);
    THROUGH(REG_CX);
    THROUGH(REG_DX);
    THROUGH(REG_SI);
    THROUGH(REG_DI);
#if LONG64
    THROUGH("r8");
    THROUGH("r12");
    THROUGH("r13");
    THROUGH("r15");
#endif
#undef THROUGH
    /* The stack pointer, for three instructions, with interrupts off. */
    asm volatile("mov %%" REG_SP ", %1; mov %2, %%" REG_SP "; mov %%" REG_SP
                 ", %%cr0; xor %%" REG_SP ", %%" REG_SP "; mov %%cr0, %%" REG_SP "; mov %%" REG_SP
                 ", %0; mov %1, %%" REG_SP
                 : "=&r"(seen), "=&r"(saved)
                 : "r"(changed)
                 : "memory");
    right &= seen == changed;
    write_cr0(old);
    check_true("MOV CR0 by every register", right);
}

static void cr4_refuses(const char *name, word bit) {
    if (on_tcg()) {
        skip(name, TCG_CR4);
        return;
    }
    word old = read_cr4();
    attempt_cr4(old ^ bit);
    check_trap(name, GP, 0);
    attempt_cr4(old);
}

static void cr4(void) {
    word old = read_cr4();
    check("CR4.TSD toggles", toggle_cr4(CR4_TSD), 3);
    check("CR4.DE toggles", toggle_cr4(CR4_DE), 3);
    check("CR4.MCE toggles", toggle_cr4(CR4_MCE), 3);
    check("CR4.PGE toggles", toggle_cr4(CR4_PGE), 3);
    check("CR4.PCE toggles", toggle_cr4(CR4_PCE), 3);
    check("CR4.OSFXSR toggles", toggle_cr4(CR4_OSFXSR), 3);
    check("CR4.OSXMMEXCPT toggles", toggle_cr4(CR4_OSXMMEXCPT), 3);
    check("CR4.VME toggles", toggle_cr4(CR4_VME), 3);
    check("CR4.PVI toggles", toggle_cr4(CR4_PVI), 3);

    static const struct {
        const char *name;
        u32 bit, leaf;
        u8 output; /* 1 EBX, 2 ECX */
        u32 feature;
    } optional[] = {
        {"CR4.FSGSBASE as CPUID says", CR4_FSGSBASE, 7, 1, CPUID_7_EBX_FSGSBASE},
        {"CR4.SMEP as CPUID says", CR4_SMEP, 7, 1, CPUID_7_EBX_SMEP},
        {"CR4.SMAP as CPUID says", CR4_SMAP, 7, 1, CPUID_7_EBX_SMAP},
        {"CR4.UMIP as CPUID says", CR4_UMIP, 7, 2, CPUID_7_ECX_UMIP},
        {"CR4.OSXSAVE as CPUID says", CR4_OSXSAVE, 1, 2, CPUID_1_ECX_XSAVE},
        {"CR4.VMXE as CPUID says", CR4_VMXE, 1, 2, CPUID_1_ECX_VMX},
        {"CR4.SMXE as CPUID says", CR4_SMXE, 1, 2, CPUID_1_ECX_SMX},
    };
    for (u32 row = 0; row < COUNT(optional); row++) {
        struct cpuid leaf = cpuid_leaf(optional[row].leaf, 0);
        bool shown = (optional[row].output == 1 ? leaf.ebx : leaf.ecx) & optional[row].feature;
        u32 worked;
        if (on_tcg() && !shown) {
            skip(optional[row].name, TCG_CR4);
            continue;
        }
        if (shown) {
            worked = toggle_cr4(optional[row].bit);
        } else {
            attempt_cr4(old | optional[row].bit);
            worked = trap.vector == GP ? 3 : 0x10;
            attempt_cr4(old);
        }
        check(optional[row].name, worked, 3);
    }
    cr4_refuses("CR4 refuses reserved bit 15", 1u << 15);
    cr4_refuses("CR4 refuses reserved bit 31", 1u << 31);
#if LONG64
    cr4_refuses("CR4 refuses to drop PAE in 64-bit mode", CR4_PAE);
    cr4_refuses("CR4 refuses an upper bit", 1ull << 40);
    cr4_refuses("CR4 refuses LA57 in 64-bit mode", CR4_LA57);
#else
    cr4_refuses("CR4 refuses PCIDE outside 64-bit mode", CR4_PCIDE);
#endif
    attempt_cr4(old);
    check("CR4 is as before", read_cr4(), old);
}

static void machine_status_word(void) {
    word old = read_cr0(), value = 0;
    asm volatile("smsw %k0" : "+r"(value));
    check("SMSW has the low word of CR0", value & 0xffff, old & 0xffff);
    static u32 place;
    place = 0xabcd0000;
    asm volatile("smsw %0" : "+m"(place));
    check("SMSW to memory writes 16 bits", place, 0xabcd0000 | (old & 0xffff));

    asm volatile("lmsw %w0" : : "r"((old | CR0_TS | CR0_MP | CR0_EM) & 0xffff) : "memory");
    check("LMSW sets MP, EM and TS", read_cr0(), old | CR0_TS | CR0_MP | CR0_EM);
    asm volatile("lmsw %w0" : : "r"((u32)CR0_NE | (old & CR0_PE)) : "memory");
    check("LMSW clears MP, EM and TS and nothing else", read_cr0(),
        old & ~(word)(CR0_TS | CR0_MP | CR0_EM));
    static u16 memory_word;
    memory_word = CR0_TS | (old & CR0_PE);
    asm volatile("lmsw %0" : : "m"(memory_word) : "memory");
    check("LMSW from memory", read_cr0() & 0xf, CR0_TS | (old & CR0_PE));
    asm volatile("clts" : : : "memory");
    check("CLTS clears TS only", read_cr0(), old & ~(word)(CR0_TS | CR0_MP | CR0_EM));
    write_cr0(old);
#if !REAL16
    asm volatile("lmsw %w0" : : "r"(0) : "memory");
    check("LMSW cannot clear PE", read_cr0() & CR0_PE, CR0_PE);
    write_cr0(old);
#endif
}

static void others(void) {
    write_cr2((word)0xfedcba98);
    check("CR2 round trip", read_cr2(), 0xfedcba98);
    word root = read_cr3();
    write_cr3(root);
    check("CR3 round trip", read_cr3(), root);
    ATTEMPT(".byte 0x0f, 0x20, 0xc8", : : : REG_AX); /* MOV EAX, CR1 */
    check_trap("CR1 does not exist", UD, 0);
    ATTEMPT(".byte 0x0f, 0x22, 0xe8", : : : REG_AX); /* MOV CR5, EAX */
    check_trap("CR5 does not exist", UD, 0);
#if LONG64
    u64 seen;
    asm volatile("mov %1, %%cr8; mov %%cr8, %0" : "=r"(seen) : "r"(9ull));
    check("CR8 round trip", seen, 9);
    asm volatile("mov %0, %%cr8" : : "r"(0ull));
    ATTEMPT("mov %0, %%cr8", : : "r"(16ull));
    excuse(on_tcg(), NO_TRAP, "TCG does not check CR8");
    check_trap("CR8 refuses bit 4", GP, 0);
    asm volatile("mov %0, %%cr8" : : "r"(0ull));
    if (on_tcg()) {
        skip("CR3 refuses a reserved upper bit",
            "QEMU 7.2's TCG never ends a MOV to CR3 that it refuses");
    } else {
        ATTEMPT("mov %0, %%cr3", : : "r"(root | 1ull << 62) : "memory");
        check_trap("CR3 refuses a reserved upper bit", GP, 0);
        write_cr3(root);
    }
#endif
}

void test_control(void) {
    cr0();
    every_register();
    cr4();
    machine_status_word();
    others();
}
