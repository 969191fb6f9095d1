/* Sender and receiver are tasks of their own, so that each direction goes on while the other waits. */
#include "transfer.h"
#include "clock.h"
#include "kernel.h"
#include "print.h"
#include "serial.h"
#include "uart.h"

#define PRIORITY  10
#define CHUNK     512
#define PATIENCE  20 /* seconds without a byte */
#define POLY      0xedb88320u
#define PATTERN_A 1664525u
#define PATTERN_B 1013904223u

struct direction {
    u32 wanted, done, sum;
    bool stuck;
    struct semaphore finished;
    u8 chunk[CHUNK];
};

static struct direction out, in;
static u32 table[256];

static void make_table(void) {
    for (u32 byte = 0; byte < 256; byte++) {
        u32 sum = byte;
        for (u32 bit = 0; bit < 8; bit++) {
            sum = sum >> 1 ^ (sum & 1 ? POLY : 0);
        }
        table[byte] = sum;
    }
}

static void add(struct direction *direction, const u8 *bytes, u32 count) {
    direction->done += count;
    u32 sum = direction->sum;
    while (count--) {
        sum = sum >> 8 ^ table[(sum ^ *bytes++) & 0xff];
    }
    direction->sum = sum;
}

static void sender(void *argument) {
    (void)argument;
    u32 seed = 1;
    while (out.done < out.wanted) {
        u32 count = out.wanted - out.done < CHUNK ? out.wanted - out.done : CHUNK;
        for (u32 i = 0; i < count; i++) {
            seed = seed * PATTERN_A + PATTERN_B;
            out.chunk[i] = seed >> 24;
        }
        u32 written = serial_write(out.chunk, count, PATIENCE * clock_hz());
        add(&out, out.chunk, written);
        if (written < count) {
            break;
        }
    }
    out.stuck = !serial_flush(PATIENCE * clock_hz());
    semaphore_give(&out.finished);
}

static void receiver(void *argument) {
    (void)argument;
    while (in.done < in.wanted) {
        u32 most = in.wanted - in.done < CHUNK ? in.wanted - in.done : CHUNK;
        u32 count = serial_read(in.chunk, most, PATIENCE * clock_hz());
        if (!count) {
            break;
        }
        add(&in, in.chunk, count);
    }
    semaphore_give(&in.finished);
}

static void prepare(struct direction *direction, u32 wanted) {
    direction->wanted = wanted;
    direction->done = 0;
    direction->sum = ~0u;
    direction->stuck = false;
    semaphore_init(&direction->finished, 0, 1);
}

static void start(const char *name, task_entry entry, struct direction *direction) {
    if (!task_create(name, PRIORITY, entry, NULL)) {
        print("no task to be had for %s\n", name);
        semaphore_give(&direction->finished);
    }
}

void transfer(u32 send, u32 receive, bool late) {
    if (!serial_open()) {
        print("there is no second serial port\n");
        return;
    }
    make_table();
    prepare(&out, send);
    prepare(&in, receive);
    if (late) {
        print("Enter: receive\n");
        while (uart_read() != '\r') {
        }
    }
    start("tReceive", receiver, &in);
    start("tSend", sender, &out);
    semaphore_take(&out.finished, FOREVER);
    semaphore_take(&in.finished, FOREVER);
    if (send) {
        print("sent %u bytes, crc32 %x, was held back %u times%s\n", out.done, ~out.sum,
            serial_held(), out.stuck ? ": stuck" : "");
    }
    if (receive) {
        print("received %u bytes, crc32 %x, %u lost, held back %u times%s\n", in.done, ~in.sum,
            serial_lost(), serial_holds(), in.done < in.wanted ? ": nothing came any more" : "");
    }
    serial_close();
}
