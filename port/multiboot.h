// The boot loader's information, copied from its memory at the very start.
#ifndef PCANEL_PORT_MULTIBOOT_H
#define PCANEL_PORT_MULTIBOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULTIBOOT_RANGES_MAX   128
#define MULTIBOOT_MODULES_MAX  128
#define MULTIBOOT_STRINGS_SIZE 16384

#define MULTIBOOT_RAM 1

typedef struct {
    uint64_t base, length;
    uint32_t type; // as in E820: 1 is usable RAM
} multiboot_range_t;

typedef struct {
    const char *string;
    uint64_t hpa, size;
} multiboot_module_t;

typedef struct {
    const char *cmdline;
    const char *loader;
    uint64_t rsdp; // ACPI, only where the loader passes it (UEFI); else 0
    unsigned ranges_count, modules_count;
    bool truncated; // more ranges, modules or text than there is room for
    multiboot_range_t ranges[MULTIBOOT_RANGES_MAX];
    multiboot_module_t modules[MULTIBOOT_MODULES_MAX];
} multiboot_t;

extern multiboot_t multiboot;

// False if magic is neither that of Multiboot 1 nor of Multiboot 2.
bool multiboot_init(uint32_t magic, uint64_t information);

// The value of a "key=value" word of the command line, with an optional suffix
// K, M or G; fallback if it is absent or malformed.
uint64_t multiboot_option(const char *key, uint64_t fallback);

#endif
