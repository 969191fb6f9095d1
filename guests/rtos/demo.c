/* A sensor that sends a message every 10 ms, a filter that computes with floats on it, and a spinning load. */
#include "demo.h"
#include "clock.h"
#include "kernel.h"
#include "print.h"

#define SENSOR_PRIORITY 4
#define FILTER_PRIORITY 12
#define LOAD_PRIORITY   PRIORITY_LOWEST
#define PERIOD_MS       10

static struct {
    struct queue queue;
    u32 storage[16];
    u32 sent, received, lost, average; /* average in thousandths */
    struct task *load;
} demo;

static void sensor(void *argument) {
    (void)argument;
    u32 delay = clock_hz() * PERIOD_MS / 1000;
    for (;;) {
        task_delay(delay ? delay : 1);
        u32 value = demo.sent % 100;
        if (queue_send(&demo.queue, &value, 0)) {
            demo.sent++;
        } else {
            demo.lost++;
        }
    }
}

/* average += (value - average) / 8, in x87 registers that stay loaded from one message to the next. */
static void filter(void *argument) {
    (void)argument;
    static const u32 eighth = 8, thousand = 1000;
    u32 value;
    asm volatile("fldz");
    for (;;) {
        queue_receive(&demo.queue, &value, FOREVER);
        asm volatile(
            "fildl %1; fsub %%st(1), %%st; fidivl %2; faddp; fld %%st; fimull %3; fistpl %0"
            : "=m"(demo.average)
            : "m"(value), "m"(eighth), "m"(thousand));
        demo.received++;
    }
}

static void spin(void *argument) {
    (void)argument;
    for (;;) {
        asm volatile("pause");
    }
}

void demo_start(void) {
    queue_init(&demo.queue, demo.storage, sizeof(demo.storage[0]), COUNT_OF(demo.storage));
    task_create("tSensor", SENSOR_PRIORITY, sensor, NULL);
    task_create("tFilter", FILTER_PRIORITY, filter, NULL);
}

void demo_print(void) {
    print("%u messages sent, %u received, %u lost, average %u.%u\n", demo.sent, demo.received,
        demo.lost, demo.average / 1000, demo.average % 1000 / 100);
}

void demo_load(bool on) {
    if (on && !demo.load) {
        demo.load = task_create("tLoad", LOAD_PRIORITY, spin, NULL);
    } else if (!on && demo.load) {
        task_delete(demo.load);
        demo.load = NULL;
    }
}
