/* The shell: a line, its first word looked up in a table. */
#include "shell.h"
#include "clock.h"
#include "demo.h"
#include "kernel.h"
#include "power.h"
#include "print.h"
#include "selftest.h"
#include "transfer.h"
#include "uart.h"

#define SHELL_PRIORITY 8
#define LINE_BYTES     80

struct command {
    const char *name, *help;
    void (*run)(const char *argument);
};

static const struct command commands[];
static struct mutex printing; /* the statistics: by the shell, or by the report */

static bool same(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static u32 number(const char *text, u32 otherwise) {
    return *text >= '0' && *text <= '9' ? decimal(text) : otherwise;
}

/* Of a number of seconds, or of one. */
static u32 ticks_of(const char *text) {
    u64 count = (u64)number(text, 1) * clock_hz();
    return count < DELAY_MAX ? count : DELAY_MAX;
}

/* Parts of a whole in tenths of a percent. */
static u32 permille(u64 part, u64 whole) {
    while (whole >> 20) {
        whole >>= 1;
        part >>= 1;
    }
    return whole ? divide(part * 1000, whole) : 0;
}

static void print_share(u32 share) {
    print("%4u.%u", share / 10, share % 10);
}

static void help(const char *argument) {
    (void)argument;
    for (const struct command *command = commands; command->name; command++) {
        print("  %-14s %s\n", command->name, command->help);
    }
}

static const char *state_name(const struct task *task) {
    if (task == task_self()) {
        return "running";
    }
    static const char *const names[] = {"free", "ready", "delay", "pend"};
    static const char *const suspended[] = {"free", "suspend", "delay+s", "pend+s"};
    return (task->suspended ? suspended : names)[task->state];
}

static void print_rest(const char *name, u64 spent, u64 whole) {
    print("%-12s %36s", name, "");
    print_share(permille(spent, whole));
    print("\n");
}

static void info(const char *argument) {
    (void)argument;
    struct times times; /* printing takes time, and is not to be in what it prints */
    kernel_times(&times);
    print("name         pri base state    stack switches   cpu %%\n");
    for (u32 slot = 0; slot < TASKS; slot++) {
        const struct task *task = task_number(slot);
        if (task) {
            print("%-12s %3u %4u %-8s %5u %8u ", task->name, task->priority, task->base_priority,
                state_name(task), task_stack_used(task), task->switches);
            print_share(permille(times.tasks[slot], times.whole));
            print("\n");
        }
    }
    print_rest("idle", times.idle, times.whole);
    print_rest("interrupts", times.interrupts, times.whole);
}

static void row(const char *name, const struct histogram *histogram) {
    print("%-8s %8u %8u %8u %8u %8u\n", name, histogram->count, histogram->min,
        histogram_quantile(histogram, 500), histogram_quantile(histogram, 999), histogram->max);
}

static void buckets(const char *name, const struct histogram *histogram) {
    for (u32 bucket = 0; bucket < BUCKETS; bucket++) {
        if (histogram->buckets[bucket]) {
            print("%s >= %u: %u\n", name, histogram_value(bucket), histogram->buckets[bucket]);
        }
    }
}

static void statistics(const char *argument) {
    if (same(argument, "reset")) {
        clock_reset();
        return;
    }
    static struct clock_statistics clock;
    mutex_lock(&printing, FOREVER);
    clock_statistics(&clock);
    print("tick %u Hz, divisor %u, %u TSC ticks; %u interrupts, %d lost%s\n", clock_hz(),
        clock_divisor(), clock_period(), clock.interrupts, clock.lost,
        clock.locked ? "" : "; measuring");
    print("latency     count      min   median   99.9 %%      max\n");
    row("handler", &clock.handler);
    row("task", &clock.task);
    print("deadlines inexact by %u\n", clock.earliest);
    if (same(argument, "all")) {
        buckets("handler", &clock.handler);
        buckets("task", &clock.task);
    }
    mutex_unlock(&printing);
}

static void print_use(const char *name, u64 spent, u64 whole) {
    print("%-12s ", name);
    print_share(permille(spent, whole));
    print(" %%\n");
}

static void spy(const char *argument) {
    struct times before, after;
    u32 delay = ticks_of(argument);
    kernel_times(&before);
    task_delay(delay);
    kernel_times(&after);
    u64 whole = after.whole - before.whole;
    for (u32 slot = 0; slot < TASKS; slot++) {
        const struct task *task = task_number(slot);
        if (task && after.tasks[slot] > before.tasks[slot]) {
            print_use(task->name, after.tasks[slot] - before.tasks[slot], whole);
        }
    }
    print_use("idle", after.idle - before.idle, whole);
    print_use("interrupts", after.interrupts - before.interrupts, whole);
}

static void uptime(const char *argument) {
    (void)argument;
    print("%u ticks, %u s\n", ticks, ticks / clock_hz());
}

static void test(const char *argument) {
    (void)argument;
    selftest();
}

static void load(const char *argument) {
    demo_load(number(argument, 1));
}

static void demo(const char *argument) {
    (void)argument;
    demo_print();
}

static void sleep(const char *argument) {
    task_delay(ticks_of(argument));
    print("slept\n");
}

static void send(const char *argument) {
    transfer(number(argument, 1), 0, false);
}

static void receive(const char *argument) {
    u32 bytes = number(argument, 1);
    while (*argument && *argument != ' ') {
        argument++;
    }
    transfer(0, bytes, same(argument, " late"));
}

static void exchange(const char *argument) {
    u32 bytes = number(argument, 1);
    transfer(bytes, bytes, false);
}

static void do_reboot(const char *argument) {
    (void)argument;
    print("rebooting\n");
    uart_flush();
    reboot();
}

static void do_power_off(const char *argument) {
    (void)argument;
    print("power off\n");
    uart_flush();
    power_off();
}

static const struct command commands[] = {
    {"help", "this list", help},
    {"i", "tasks", info},
    {"stats", "latency of the tick; `stats all` every bucket, `stats reset` from now on",
        statistics},
    {"spy", "CPU use over N seconds", spy},
    {"tick", "time since the start", uptime},
    {"sleep", "wait N seconds", sleep},
    {"demo", "what the demonstration tasks have done", demo},
    {"load", "1: a task that spins at the lowest priority; 0: none", load},
    {"send", "N bytes to the second serial port, with their CRC-32", send},
    {"receive", "N bytes from there; `receive N late` reads none before Enter is typed", receive},
    {"exchange", "both at once", exchange},
    {"test", "the kernel tests itself", test},
    {"reboot", "restart the machine", do_reboot},
    {"poweroff", "switch the machine off", do_power_off},
    {NULL, NULL, NULL},
};

/* One line with echo and backspace. */
static void read_line(char *line) {
    u32 length = 0;
    for (;;) {
        char c = uart_read();
        if (c == '\r' || c == '\n') {
            print("\n");
            line[length] = 0;
            return;
        }
        if ((c == '\b' || c == 0x7f) && length) {
            length--;
            print("\b \b");
        } else if (c >= ' ' && c < 0x7f && length < LINE_BYTES - 1) {
            line[length++] = c;
            print("%c", c);
        }
    }
}

static void execute(char *line) {
    while (*line == ' ') {
        line++;
    }
    char *argument = line;
    while (*argument && *argument != ' ') {
        argument++;
    }
    while (*argument == ' ') {
        *argument++ = 0;
    }
    if (!*line) {
        return;
    }
    for (const struct command *command = commands; command->name; command++) {
        if (same(command->name, line)) {
            command->run(argument);
            return;
        }
    }
    print("%s: no such command; `help` lists them\n", line);
}

static void shell(void *argument) {
    char line[LINE_BYTES];
    print("\nrtos: %u priorities, tick %u Hz%s\n", PRIORITIES, clock_hz(), (const char *)argument);
    for (;;) {
        print("-> ");
        read_line(line);
        execute(line);
    }
}

static void report(void *count) {
    while (clock_measured() < (u32)count) {
        task_delay(clock_hz() / 10 + 1);
    }
    statistics("");
    do_power_off("");
}

void report_start(u32 count) {
    task_create("tReport", SHELL_PRIORITY, report, (void *)count);
}

void shell_start(const char *banner) {
    mutex_init(&printing);
    task_create("tShell", SHELL_PRIORITY, shell, (void *)banner);
}
