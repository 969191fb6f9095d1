/* Reads the file that describes a machine. */
#include "kvmrun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC "PCKVM002"

/* Every page is touched here, so that KVM always finds it present. 4-KiB pages: a guest's first touch of each is then an
 * EPT violation of its own, which is what the row page_first_touch measures. */
static uint8_t *memory_map(uint64_t size, bool large) {
    uint64_t align = 2 << 20;
    uint8_t *area =
        mmap(NULL, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        fail("memory of the machine");
    }
    area += -(uintptr_t)area & (align - 1);
    if (madvise(area, size, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0) {
        fail("madvise");
    }
    memset(area, 0, size);
    return area;
}

static void read_all(int file, void *target, uint64_t size) {
    for (uint8_t *at = target; size;) {
        ssize_t done = read(file, at, size);
        if (done <= 0) {
            fail("the machine's file is cut short");
        }
        at += done;
        size -= done;
    }
}

struct image_header image_read(struct machine *machine, const char *path) {
    struct image_header header;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        fail(path);
    }
    read_all(file, &header, sizeof(header));
    if (memcmp(header.magic, MAGIC, sizeof(header.magic))) {
        errno = EINVAL;
        fail(path);
    }
    machine->size = header.size;
    machine->memory = memory_map(header.size, header.large_pages);
    for (uint64_t chunk = 0; chunk < header.chunks; chunk++) {
        uint64_t place[2]; /* gpa, size */
        read_all(file, place, sizeof(place));
        if (place[0] > header.size || place[1] > header.size - place[0]) {
            errno = EFBIG;
            fail(path);
        }
        read_all(file, machine->memory + place[0], place[1]);
    }
    close(file);
    return header;
}
