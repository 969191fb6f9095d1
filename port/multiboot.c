// Reads Multiboot 1 and 2 information.
// Source: Multiboot Specification 0.6.96, section 3.3; Multiboot2 Specification
// 2.0, section 3.6.
#include <string.h>
#include "port/multiboot.h"

#define MULTIBOOT1_MAGIC 0x2badb002
#define MULTIBOOT2_MAGIC 0x36d76289

#define MB1_HAS_MEMORY  (1 << 0)
#define MB1_HAS_CMDLINE (1 << 2)
#define MB1_HAS_MODULES (1 << 3)
#define MB1_HAS_MMAP    (1 << 6)
#define MB1_HAS_LOADER  (1 << 9)

#define MB2_TAG_END      0
#define MB2_TAG_CMDLINE  1
#define MB2_TAG_LOADER   2
#define MB2_TAG_MODULE   3
#define MB2_TAG_MMAP     6
#define MB2_TAG_ACPI_OLD 14
#define MB2_TAG_ACPI_NEW 15

typedef struct {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
} mb1_info_t;

typedef struct {
    uint32_t start, end, string, reserved;
} mb1_module_t;

typedef struct __attribute__((packed)) {
    uint32_t size;
    uint64_t base, length;
    uint32_t type;
} mb1_range_t;

typedef struct {
    uint32_t type, size;
} mb2_tag_t;

typedef struct {
    mb2_tag_t tag;
    uint32_t start, end;
    char string[];
} mb2_module_t;

typedef struct {
    mb2_tag_t tag;
    uint32_t entry_size, entry_version;
    char entries[];
} mb2_mmap_t;

typedef struct {
    uint64_t base, length;
    uint32_t type, reserved;
} mb2_range_t;

multiboot_t multiboot;

static struct {
    char text[MULTIBOOT_STRINGS_SIZE];
    size_t used;
} strings;

static const char *keep(const char *text) {
    size_t size = strlen(text) + 1;
    if (size > sizeof(strings.text) - strings.used) {
        multiboot.truncated = true;
        return "";
    }
    char *copy = strings.text + strings.used;
    memcpy(copy, text, size);
    strings.used += size;
    return copy;
}

static void add_range(uint64_t base, uint64_t length, uint32_t type) {
    if (multiboot.ranges_count == MULTIBOOT_RANGES_MAX) {
        multiboot.truncated = true;
        return;
    }
    multiboot.ranges[multiboot.ranges_count++] = (multiboot_range_t){base, length, type};
}

static void add_module(uint64_t start, uint64_t end, const char *string) {
    if (multiboot.modules_count == MULTIBOOT_MODULES_MAX) {
        multiboot.truncated = true;
        return;
    }
    multiboot.modules[multiboot.modules_count++] =
        (multiboot_module_t){keep(string), start, end - start};
}

static void read_mb1(const mb1_info_t *info) {
    if (info->flags & MB1_HAS_CMDLINE) {
        multiboot.cmdline = keep((const char *)(uintptr_t)info->cmdline);
    }
    if (info->flags & MB1_HAS_LOADER) {
        multiboot.loader = keep((const char *)(uintptr_t)info->boot_loader_name);
    }
    if (info->flags & MB1_HAS_MODULES) {
        const mb1_module_t *module = (const mb1_module_t *)(uintptr_t)info->mods_addr;
        for (uint32_t i = 0; i < info->mods_count; i++, module++) {
            add_module(module->start, module->end, (const char *)(uintptr_t)module->string);
        }
    }
    if (info->flags & MB1_HAS_MMAP) {
        uintptr_t at = info->mmap_addr, end = at + info->mmap_length;
        while (at < end) {
            const mb1_range_t *range = (const mb1_range_t *)at;
            add_range(range->base, range->length, range->type);
            at += range->size + 4;
        }
    } else if (info->flags & MB1_HAS_MEMORY) {
        add_range(0, info->mem_lower * 1024ull, MULTIBOOT_RAM);
        add_range(0x100000, info->mem_upper * 1024ull, MULTIBOOT_RAM);
    }
}

static void read_mb2(const mb2_tag_t *tag) {
    while (tag->type != MB2_TAG_END) {
        switch (tag->type) {
            case MB2_TAG_CMDLINE:
                multiboot.cmdline = keep((const char *)(tag + 1));
                break;
            case MB2_TAG_LOADER:
                multiboot.loader = keep((const char *)(tag + 1));
                break;
            case MB2_TAG_MODULE: {
                const mb2_module_t *module = (const mb2_module_t *)tag;
                add_module(module->start, module->end, module->string);
                break;
            }
            case MB2_TAG_MMAP: {
                const mb2_mmap_t *map = (const mb2_mmap_t *)tag;
                const char *end = (const char *)tag + tag->size;
                for (const char *at = map->entries; at < end; at += map->entry_size) {
                    const mb2_range_t *range = (const mb2_range_t *)at;
                    add_range(range->base, range->length, range->type);
                }
                break;
            }
            case MB2_TAG_ACPI_OLD:
            case MB2_TAG_ACPI_NEW:
                // A copy of the RSDP; the newer tag comes later and wins.
                multiboot.rsdp = (uintptr_t)(tag + 1);
                break;
        }
        tag = (const mb2_tag_t *)((const char *)tag + ((tag->size + 7) & ~7u));
    }
}

bool multiboot_init(uint32_t magic, uint64_t information) {
    static char rsdp[36] __attribute__((aligned(16)));
    multiboot.cmdline = "";
    multiboot.loader = "";
    if (magic == MULTIBOOT1_MAGIC) {
        read_mb1((const mb1_info_t *)information);
    } else if (magic == MULTIBOOT2_MAGIC) {
        read_mb2((const mb2_tag_t *)(information + 8));
    } else {
        return false;
    }
    if (multiboot.rsdp != 0) {
        memcpy(rsdp, (const void *)multiboot.rsdp, sizeof(rsdp));
        multiboot.rsdp = (uintptr_t)rsdp;
    }
    return true;
}

uint64_t multiboot_option(const char *key, uint64_t fallback) {
    size_t length = strlen(key);
    const char *at = multiboot.cmdline;
    while (*at) {
        while (*at == ' ') {
            at++;
        }
        if (strncmp(at, key, length) == 0 && at[length] == '=') {
            uint64_t value = 0;
            const char *digit = at + length + 1;
            if (*digit < '0' || *digit > '9') {
                return fallback;
            }
            for (; *digit >= '0' && *digit <= '9'; digit++) {
                value = value * 10 + (*digit - '0');
            }
            unsigned shift = *digit == 'K' ? 10 : *digit == 'M' ? 20 : *digit == 'G' ? 30 : 0;
            return value << shift;
        }
        while (*at && *at != ' ') {
            at++;
        }
    }
    return fallback;
}
