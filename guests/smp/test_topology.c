/* Which processor is which: APIC IDs and the topology leaves of CPUID (SDM Vol. 3A, "Programming Considerations for
 * Hardware Multi-Threading Capable Processors"). */
#include "suite.h"

#define BSP         0x100u /* IA32_APIC_BASE */
#define CACHES      4
#define TOPOLOGY    0x0b
#define TOPOLOGY_V2 0x1f
#define LEVELS      6
#define HTT         (1u << 28) /* CPUID.1:EDX */

static u32 leaf; /* TOPOLOGY or TOPOLOGY_V2 */

static bool boots(void) {
    return rdmsr(IA32_APIC_BASE) & BSP;
}

static bool apic_id_is_number(void) {
    return apic_id() == this_cpu();
}

static bool initial_id_is_number(void) {
    return cpuid(1, 0).ebx >> 24 == this_cpu();
}

static bool x2apic_id_is_number(void) {
    return cpuid(leaf, 0).edx == this_cpu();
}

/* The last level that is there: its shift leaves nothing of an ID but the package, and all levels' shifts rise. */
static bool levels_are_sane(void) {
    u32 shift = 0, level = 0;
    for (; level < LEVELS; level++) {
        struct cpuid r = cpuid(leaf, level);
        u32 type = r.ecx >> 8 & 0xff;
        if (type == 0) {
            break;
        }
        if ((r.eax & 31) < shift || (r.ecx & 0xff) != level || (r.ebx & 0xffff) == 0 ||
            r.edx != this_cpu()) {
            return false;
        }
        shift = r.eax & 31;
    }
    struct cpuid end = cpuid(leaf, level);
    return level >= 1 && (end.eax & 31) == 0 && (end.ebx & 0xffff) == 0;
}

/* Bits of an APIC ID within a package by this leaf: as by leaf 1, where a CPU without HTT is a package. */
static u32 package_shift(void) {
    u32 shift = 0;
    for (u32 level = 0; level < LEVELS; level++) {
        struct cpuid r = cpuid(leaf, level);
        if (!(r.ecx >> 8 & 0xff)) {
            break;
        }
        shift = r.eax & 31;
    }
    return shift;
}

static u32 shift_of(u32 count) {
    u32 shift = 0;
    while (1u << shift < count) {
        shift++;
    }
    return shift;
}

static void leaf_checks(const char *ids, const char *levels, const char *packages) {
    if (cpuid(0, 0).eax < leaf || cpuid(leaf, 0).ebx == 0) {
        skip(ids, "no such leaf");
        skip(levels, "no such leaf");
        skip(packages, "no such leaf");
        return;
    }
    check(ids, where(x2apic_id_is_number), ALL);
    excuse(native(), 0, "the engine's leaf is that of one real package");
    check(levels, where(levels_are_sane), ALL);
    struct cpuid one = cpuid(1, 0);
    u32 logical = one.edx & HTT ? one.ebx >> 16 & 0xff : 1;
    check(packages, package_shift(), shift_of(logical));
}

/* Leaf 4: cores of a package, and CPUs that share a cache, as fields of the APIC ID. */
static bool caches_are_sane(void) {
    struct cpuid one = cpuid(1, 0);
    u32 logical = one.edx & HTT ? one.ebx >> 16 & 0xff : 1;
    for (u32 index = 0; index < 8; index++) {
        struct cpuid r = cpuid(CACHES, index);
        if (!(r.eax & 31)) {
            return index > 0;
        }
        u32 sharing = (r.eax >> 14 & 0xfff) + 1, cores = (r.eax >> 26) + 1;
        if (1u << shift_of(sharing) > 1u << shift_of(logical) || cores > 1u << shift_of(logical)) {
            return false;
        }
    }
    return true;
}

void test_topology(void) {
    check("one of them has booted", where(boots), 1);
    check("the APIC IDs are 0, 1, ...", where(apic_id_is_number), ALL);
    check("leaf 1 has them", where(initial_id_is_number), ALL);
    if (cpuid(CACHES, 0).eax & 31) {
        excuse(native(), 0, "the engine's leaf is that of one real package");
        check("leaf 4 shares caches within a package", where(caches_are_sane), ALL);
    } else {
        skip("leaf 4 shares caches within a package", "no such leaf");
    }
    leaf = TOPOLOGY;
    leaf_checks("leaf 0BH has the APIC IDs", "leaf 0BH has levels, and an end",
        "leaf 0BH has the packages of leaf 1");
    leaf = TOPOLOGY_V2;
    leaf_checks("leaf 1FH has the APIC IDs", "leaf 1FH has levels, and an end",
        "leaf 1FH has the packages of leaf 1");
}
