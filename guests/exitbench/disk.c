/* What requests to a disk take, in ticks of the TSC: disk DEVICE read|sequential|fsync BYTES COUNT
 *
 * read: at random places, one at a time, past the page cache. sequential: the same, one after the other. fsync: a write
 * and the flush of it, of which the flush counts. Prints the median, the least and the 99th percentile. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

static int compare(const void *a, const void *b) {
    unsigned long long x = *(const unsigned long long *)a, y = *(const unsigned long long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "disk DEVICE read|sequential|fsync BYTES COUNT\n");
        return 2;
    }
    int writes = !strcmp(argv[2], "fsync"), random = !strcmp(argv[2], "read");
    size_t size = strtoul(argv[3], NULL, 0);
    unsigned count = strtoul(argv[4], NULL, 0), state = 12345;
    int fd = open(argv[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    void *buffer;
    unsigned long long *ticks = calloc(count + 1, sizeof *ticks);
    if (end < (off_t)size || posix_memalign(&buffer, 4096, size) || !ticks || !count) {
        perror(argv[1]);
        return 1;
    }
    memset(buffer, 0x5a, size);
    for (unsigned i = 0; i < count; i++) {
        state = state * 1103515245 + 12345;
        off_t at = (random || writes ? state >> 8 : i) % (end / size) * size;
        if (writes && pwrite(fd, buffer, size, at) != (ssize_t)size) {
            perror("write");
            return 1;
        }
        unsigned long long began = __rdtsc();
        if (writes ? fsync(fd) : pread(fd, buffer, size, at) != (ssize_t)size) {
            perror(argv[2]);
            return 1;
        }
        ticks[i] = __rdtsc() - began;
    }
    qsort(ticks, count, sizeof *ticks, compare);
    printf("disk: %s %s %zu: %llu %llu %llu\n", argv[1], argv[2], size, ticks[count / 2], ticks[0],
        ticks[count * 99 / 100]);
    return 0;
}
