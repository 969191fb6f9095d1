/* The Multiboot command line. */
#include "options.h"

#define MULTIBOOT_CMDLINE 4u

static const char *cmdline = "";

void options_init(const void *multiboot) {
    const struct {
        u32 flags, mem_lower, mem_upper, boot_device, cmdline;
    } *information = multiboot;
    if (information->flags & MULTIBOOT_CMDLINE) {
        cmdline = (const char *)(word)information->cmdline;
    }
}

static bool ends(char c) {
    return c == 0 || c == ' ';
}

const char *option(const char *key) {
    for (const char *at = cmdline; *at; at++) {
        const char *name = key;
        if (at == cmdline || at[-1] == ' ') {
            for (; *name && *at == *name; at++) {
                name++;
            }
            if (!*name && *at == '=') {
                return at + 1;
            }
            if (!*at) {
                break;
            }
        }
    }
    return NULL;
}

u32 option_number(const char *key, u32 otherwise) {
    const char *at = option(key);
    if (!at || ends(*at)) {
        return otherwise;
    }
    u32 value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + *at - '0';
    }
    return value;
}

bool option_lists(const char *key, const char *name) {
    const char *at = option(key);
    if (!at) {
        return true;
    }
    while (!ends(*at)) {
        const char *want = name;
        for (; *want && *at == *want; at++) {
            want++;
        }
        if (!*want && (ends(*at) || *at == ',')) {
            return true;
        }
        while (!ends(*at) && *at++ != ',') {
        }
    }
    return false;
}
