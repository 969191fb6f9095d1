/* Reads the MADT (ACPI Specification, "Multiple APIC Description Table") and the MP table (MultiProcessor Specification 1.4,
 * chapter 4). */
#include "tables.h"

#define EBDA_SEGMENT 0x40e
#define BIOS         0xe0000u
#define BIOS_END     0x100000u

static const u8 *at(word gpa) {
    return (const u8 *)gpa;
}

static bool is(const void *there, const char *text) {
    const char *bytes = there;
    while (*text) {
        if (*bytes++ != *text++) {
            return false;
        }
    }
    return true;
}

/* A structure at a multiple of 16 bytes, in the first KiB of the EBDA or in the BIOS's memory. */
static const u8 *find(const char *signature) {
    word ebda = *(const volatile u16 *)EBDA_SEGMENT << 4;
    for (word gpa = ebda; gpa < ebda + 1024; gpa += 16) {
        if (is(at(gpa), signature)) {
            return at(gpa);
        }
    }
    for (word gpa = BIOS; gpa < BIOS_END; gpa += 16) {
        if (is(at(gpa), signature)) {
            return at(gpa);
        }
    }
    return NULL;
}

static u32 word_at(const u8 *bytes) {
    return *(const u32 *)bytes;
}

static const u8 *madt(void) {
    const u8 *rsdp = find("RSD PTR ");
    if (!rsdp) {
        return NULL;
    }
    const u8 *rsdt = at(word_at(rsdp + 16));
    for (const u8 *entry = rsdt + 36; entry < rsdt + word_at(rsdt + 4); entry += 4) {
        if (is(at(word_at(entry)), "APIC")) {
            return at(word_at(entry));
        }
    }
    return NULL;
}

u32 madt_cpus(void) {
    const u8 *table = madt();
    u32 found = 0;
    if (!table) {
        return 0;
    }
    for (const u8 *entry = table + 44; entry < table + word_at(table + 4); entry += entry[1]) {
        if (entry[0] == 0 && word_at(entry + 4) & 1) { /* processor local APIC, enabled */
            if (entry[3] != found++) {
                return 0;
            }
        }
    }
    return found;
}

u32 mp_cpus(void) {
    const u8 *pointer = find("_MP_");
    if (!pointer) {
        return 0;
    }
    const u8 *table = at(word_at(pointer + 4));
    u32 found = 0;
    const u8 *entry = table + 44;
    for (u32 left = *(const u16 *)(table + 34); left; left--) {
        if (entry[0] == 0 && entry[3] & 1) { /* processor, usable */
            if (entry[1] != found++) {
                return 0;
            }
        }
        entry += entry[0] == 0 ? 20 : 8;
    }
    return found;
}
