/* CPUID (SDM Vol. 2A, "CPUID"; Vol. 3A, "Processor Identification and Feature Determination"). */
#include "test.h"

static bool same(struct cpuid a, struct cpuid b) {
    return a.eax == b.eax && a.ebx == b.ebx && a.ecx == b.ecx && a.edx == b.edx;
}

static bool zero(struct cpuid leaf) {
    return !(leaf.eax | leaf.ebx | leaf.ecx | leaf.edx);
}

static bool printable(u32 text) {
    for (int byte = 0; byte < 4; byte++, text >>= 8) {
        if ((text & 0xff) < 0x20 || (text & 0xff) > 0x7e) {
            return false;
        }
    }
    return true;
}

/* OSXSAVE is a copy of CR4.OSXSAVE, and so the answer changes from one CPUID to the next. */
static void osxsave(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE)) {
        skip("OSXSAVE follows CR4", "no XSAVE");
        return;
    }
    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_OSXSAVE);
    bool set = cpuid(1, 0).ecx & CPUID_1_ECX_OSXSAVE;
    write_cr4(cr4 & ~CR4_OSXSAVE);
    bool clear = !(cpuid(1, 0).ecx & CPUID_1_ECX_OSXSAVE);
    write_cr4(cr4);
    check_true("OSXSAVE follows CR4", set && clear);
}

static void registers(void) {
#if LONG64
    u64 a = 0xffffffff00000000ull, b = ~0ull, c = 0xffffffff00000000ull, d = ~0ull;
    asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    check("clears the upper halves", (a | b | c | d) >> 32, 0);
    u64 r8, r15;
    asm volatile("mov $0x1122334455667788, %%r8; mov %%r8, %%r15; xor %%eax, %%eax; cpuid; mov "
                 "%%r8, %0; mov %%r15, %1"
                 : "=m"(r8), "=m"(r15)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r15");
    check_true("keeps R8 and R15", r8 == 0x1122334455667788 && r15 == r8);
#endif
    u32 si = 0x12345678, di = 0x9abcdef0, kept;
    word before, after;
    asm volatile("push %%" REG_BP "; mov $0x13579bdf, %%ebp; xor %%eax, %%eax; cmp $1, %%eax; "
                 "pushf; cpuid; pushf; pop %%" REG_CX "; pop %%" REG_DX
                 "; mov %%ebp, %%eax; pop %%" REG_BP
                 : "=d"(before), "=c"(after), "+S"(si), "+D"(di), "=a"(kept)
                 :
                 : REG_BX, "memory");
    check("keeps the flags", after, before);
    check_true(
        "keeps ESI, EDI and EBP", si == 0x12345678 && di == 0x9abcdef0 && kept == 0x13579bdf);
}

void test_cpuid(void) {
    struct cpuid vendor = cpuid(0, 0);
    u32 maximum = vendor.eax;
    check_true("vendor is printable",
        printable(vendor.ebx) && printable(vendor.ecx) && printable(vendor.edx));
    bool stable = true;
    for (int turn = 0; turn < 10; turn++) {
        stable &= same(vendor, cpuid(0, turn));
    }
    check_true("vendor is stable", stable);
    check_true("has basic leaf 1 and is sane", maximum >= 1 && maximum < 0x100);
    check_true("a leaf past the last repeats the last",
        same(cpuid(maximum, 0), cpuid(maximum + 0x1000, 0)));
    struct cpuid features = cpuid(1, 0);
    check("leaf 1 has FPU, PSE, TSC, MSR, PAE, CX8, APIC, PGE, FXSR", features.edx & 0x01002379,
        0x01002379);

    struct cpuid extended = cpuid(0x80000000, 0);
    check_true(
        "has extended leaf 80000001H", extended.eax >= 0x80000001 && extended.eax < 0x80000100);
    u32 lm = cpuid(0x80000001, 0).edx & CPUID_80000001_EDX_LM;
    check_true("80000001H says long mode", lm || !LONG64);
    if (extended.eax >= 0x80000008) {
        u32 widths = cpuid(0x80000008, 0).eax;
        check_true("physical width is 32 to 52", (widths & 0xff) >= 32 && (widths & 0xff) <= 52);
        u32 la57 = cpuid_leaf(7, 0).ecx & CPUID_7_ECX_LA57;
        check("linear width", widths >> 8 & 0xff, la57 ? 57 : lm ? 48 : 32);
    } else {
        skip("physical width is 32 to 52", "no leaf 80000008H");
        skip("linear width", "no leaf 80000008H");
    }
    if (maximum >= 7) {
        check_true("leaf 7 past its last subleaf is zero", zero(cpuid(7, 0xffff)));
    } else {
        skip("leaf 7 past its last subleaf is zero", "no leaf 7");
    }
    if (maximum >= 4) {
        u32 caches = 0;
        while (caches < 10 && cpuid(4, caches).eax & 0x1f) {
            caches++;
        }
        check_true("leaf 4 ends", caches < 10);
    } else {
        skip("leaf 4 ends", "no leaf 4");
    }
    if (maximum >= 0xd && features.ecx & CPUID_1_ECX_XSAVE) {
        struct cpuid xsave = cpuid(0xd, 0);
        check_true("leaf 0DH has x87 and SSE and fits itself",
            (xsave.eax & 3) == 3 && xsave.ecx >= 576 && xsave.ebx <= xsave.ecx);
    } else {
        skip("leaf 0DH has x87 and SSE and fits itself", "no XSAVE");
    }
    osxsave();
    registers();
}
