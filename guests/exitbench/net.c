/* What a network takes, in ticks of the TSC: net ping IP COUNT | net sink PORT | net send IP PORT MIB | net get IP PORT
 * MIB
 *
 * ping: ICMP echoes of 56 bytes, one at a time: prints the median, the least and the 99th percentile. sink: takes what
 * send sends. send, get: two streams, of which the second counts: prints its ticks by MiB. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <x86intrin.h>

#define MIB     (1 << 20)
#define PAYLOAD 56

static char buffer[1 << 16];

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int compare(const void *a, const void *b) {
    unsigned long long x = *(const unsigned long long *)a, y = *(const unsigned long long *)b;
    return (x > y) - (x < y);
}

static unsigned short checksum(const void *data, size_t size) {
    const unsigned short *word = data;
    unsigned sum = 0;
    for (size_t i = 0; i < size / 2; i++) {
        sum += word[i];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

/* One echo: 0 once its answer is there. */
static int echo(int fd, const struct sockaddr_in *to, unsigned short number) {
    struct {
        struct icmphdr header;
        char payload[PAYLOAD];
    } request = {.header = {.type = ICMP_ECHO, .un.echo = {.id = 7, .sequence = number}}};
    request.header.checksum = checksum(&request, sizeof request);
    if (sendto(fd, &request, sizeof request, 0, (const void *)to, sizeof *to) < 0) {
        return -1;
    }
    for (;;) {
        ssize_t size = recv(fd, buffer, sizeof buffer, 0);
        const struct icmphdr *answer = (const void *)(buffer + sizeof(struct iphdr));
        if (size < 0) {
            return -1;
        }
        if (size >= (ssize_t)(sizeof(struct iphdr) + sizeof *answer) &&
            answer->type == ICMP_ECHOREPLY && answer->un.echo.id == 7 &&
            answer->un.echo.sequence == number) {
            return 0;
        }
    }
}

static int ping(const struct sockaddr_in *to, unsigned count) {
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct timeval patience = {.tv_sec = 5};
    unsigned long long *ticks = calloc(count + 1, sizeof *ticks);
    if (fd < 0 || !ticks || !count ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)) {
        return fail("ping");
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned long long began = __rdtsc();
        if (echo(fd, to, i)) {
            return fail("ping");
        }
        ticks[i] = __rdtsc() - began;
        usleep(3000);
    }
    qsort(ticks, count, sizeof *ticks, compare);
    printf("net: ping: %llu %llu %llu\n", ticks[count / 2], ticks[0], ticks[count * 99 / 100]);
    return 0;
}

static int sink(struct sockaddr_in *at) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at->sin_addr.s_addr = INADDR_ANY;
    if (fd < 0 || bind(fd, (void *)at, sizeof *at) || listen(fd, 1)) {
        return fail("sink");
    }
    puts("net: sink is ready");
    fflush(stdout);
    for (;;) {
        int stream = accept(fd, NULL, NULL);
        if (stream < 0) {
            return fail("sink");
        }
        while (read(stream, buffer, sizeof buffer) > 0) {
        }
        if (write(stream, "done", 4) != 4) {
            return fail("sink");
        }
        close(stream);
    }
}

/* `mib` MiB there, until the sink says that it has them. */
static int send_all(int fd, size_t mib) {
    for (size_t left = mib * MIB; left;) {
        ssize_t size = write(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
        if (size <= 0) {
            return -1;
        }
        left -= size;
    }
    return shutdown(fd, SHUT_WR) || read(fd, buffer, 4) != 4;
}

static int get_all(int fd, size_t mib) {
    ssize_t size;
    size_t got = 0;
    while ((size = read(fd, buffer, sizeof buffer)) > 0) {
        got += size;
    }
    return size < 0 || got != mib * MIB;
}

static int stream(
    const struct sockaddr_in *to, size_t mib, int (*move)(int, size_t), const char *name) {
    unsigned long long ticks = 0;
    if (!mib) {
        return fail(name);
    }
    for (int i = 0; i < 2; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (const void *)to, sizeof *to)) {
            return fail(name);
        }
        unsigned long long began = __rdtsc();
        if (move(fd, mib)) {
            return fail(name);
        }
        ticks = __rdtsc() - began;
        close(fd);
    }
    printf("net: %s: %llu\n", name, ticks / mib);
    return 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *what = argc > 1 ? argv[1] : "";
    if (argc == 3 && !strcmp(what, "sink")) {
        to.sin_port = htons(atoi(argv[2]));
        return sink(&to);
    }
    if (argc > 3 && inet_aton(argv[2], &to.sin_addr)) {
        if (argc == 4 && !strcmp(what, "ping")) {
            return ping(&to, atoi(argv[3]));
        }
        to.sin_port = htons(atoi(argv[3]));
        if (argc == 5 && !strcmp(what, "send")) {
            return stream(&to, atoi(argv[4]), send_all, what);
        }
        if (argc == 5 && !strcmp(what, "get")) {
            return stream(&to, atoi(argv[4]), get_all, what);
        }
    }
    fputs(
        "net ping IP COUNT | net sink PORT | net send IP PORT MIB | net get IP PORT MIB\n", stderr);
    return 2;
}
