// The TSC's rate, and deadlines on the local APIC timer. The rate is measured
// against channel 2 of the 8254. CPUID leaf 15h is used only where the 8254 does
// not count, since some machines report another clock's rate there. Deadlines use
// TSC-deadline mode if present, else one-shot mode, whose rate is measured the
// same way.
// Source: SDM Vol. 3A, "APIC Timer"; 8254 data sheet.
#include "port/apic.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/x86.h"

#define PIT_COUNT   47727 // 40 ms
#define PIT_GIVE_UP 4000000000u // TSC ticks, more than 40 ms of any CPU
#define PIT_2_ONCE  (2 << 6 | 3 << 4 | 0 << 1) // channel 2, low then high, mode 0
#define US_MAX      (1ull << 50) // 35 years

uint64_t tsc_hz;

static struct {
    uint64_t deadline[TIMER_COUNT];
    uint64_t armed; // the hardware's deadline; UINT64_MAX: none
    uint64_t apic_hz; // 0: TSC-deadline mode
} timer = {.armed = UINT64_MAX};

// Runs both counters over one interval of the 8254; false if it never ends.
static bool measure(uint64_t *tsc_ticks, uint64_t *apic_ticks) {
    outb(PC_SYSTEM_CONTROL_B, (inb(PC_SYSTEM_CONTROL_B) & ~PIT_SPEAKER) | PIT_GATE_2);
    outb(PC_PIT + PIT_CONTROL, PIT_2_ONCE);
    outb(PC_PIT + 2, PIT_COUNT & 0xff);
    outb(PC_PIT + 2, PIT_COUNT >> 8);
    uint32_t apic = apic_read(APIC_TIMER_CURRENT);
    uint64_t start = rdtsc(), now = start;
    while (!(inb(PC_SYSTEM_CONTROL_B) & PIT_OUT_2)) {
        now = rdtsc();
        if (now - start > PIT_GIVE_UP) {
            return false;
        }
    }
    now = rdtsc();
    *apic_ticks = apic - apic_read(APIC_TIMER_CURRENT);
    *tsc_ticks = now - start;
    return true;
}

static uint64_t cpuid_tsc_hz(void) {
    cpuid_t r = {0};
    if (cpuid(0, 0).eax >= 0x15) {
        r = cpuid(0x15, 0);
    }
    if (r.eax != 0 && r.ebx != 0 && r.ecx != 0) {
        return (uint64_t)r.ecx * r.ebx / r.eax;
    }
    return 1000000000;
}

static void program(uint64_t tsc) {
    timer.armed = tsc;
    if (tsc == UINT64_MAX) {
        return;
    }
    if (timer.apic_hz == 0) {
        wrmsr(IA32_TSC_DEADLINE, tsc);
        return;
    }
    uint64_t now = rdtsc();
    uint64_t ticks = tsc > now ? tsc - now : 0;
    // A wait longer than the counter holds ends early; the interrupt arms it again.
    uint64_t limit = mul_div(UINT32_MAX, tsc_hz, timer.apic_hz);
    uint64_t count = ticks < limit ? mul_div(ticks, timer.apic_hz, tsc_hz) + 1 : UINT32_MAX;
    apic_write(APIC_TIMER_INITIAL, count);
}

static void interrupt(trap_frame_t *frame) {
    (void)frame;
    uint64_t now = rdtsc(), next = UINT64_MAX;
    for (unsigned i = 0; i < TIMER_COUNT; i++) {
        uint64_t deadline = timer.deadline[i];
        if (deadline != 0 && deadline <= now) {
            timer.deadline[i] = 0;
            host_attention |= i != TIMER_CORE ? ATTENTION_NEEDED : 0;
            timer_expired(i); // may set it again
            deadline = timer.deadline[i];
        }
        if (deadline != 0 && deadline < next) {
            next = deadline;
        }
    }
    program(next);
}

// The hardware is programmed only for an earlier deadline than its current one. It may fire
// for a deadline that was disarmed; that costs less than reprogramming it each time.
void timer_set(timer_slot_t slot, uint64_t tsc) {
    uint64_t flags = irq_save();
    timer.deadline[slot] = tsc;
    if (tsc != 0 && tsc < timer.armed) {
        program(tsc);
    }
    irq_restore(flags);
}

uint64_t timer_get(timer_slot_t slot) {
    return timer.deadline[slot];
}

void timer_arm(uint64_t tsc) {
    timer_set(TIMER_CORE, tsc);
}

uint64_t timer_us(uint64_t us) {
    return mul_div(us < US_MAX ? us : US_MAX, tsc_hz, 1000000);
}

void timer_init(void) {
    apic_write(APIC_TIMER_DIVIDE, 0xb); // by 1
    apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED | TRAP_TIMER);
    apic_write(APIC_TIMER_INITIAL, 0xffffffff);
    uint64_t tsc_ticks, apic_ticks;
    if (measure(&tsc_ticks, &apic_ticks)) {
        tsc_hz = tsc_ticks * PIT_HZ / PIT_COUNT;
        timer.apic_hz = apic_ticks * PIT_HZ / PIT_COUNT;
    } else {
        tsc_hz = cpuid_tsc_hz();
        uint64_t start = rdtsc();
        uint32_t apic = apic_read(APIC_TIMER_CURRENT);
        while (rdtsc() - start < tsc_hz / 25) {
        }
        timer.apic_hz = (uint64_t)(apic - apic_read(APIC_TIMER_CURRENT)) * 25;
    }
    apic_write(APIC_TIMER_INITIAL, 0);
    trap_set_handler(TRAP_TIMER, interrupt);
    if (cpuid(1, 0).ecx & CPUID_1_ECX_TSC_DEADLINE) {
        timer.apic_hz = 0;
        apic_write(APIC_LVT_TIMER, APIC_LVT_TSC_DEADLINE | TRAP_TIMER);
        __asm volatile("mfence" : : : "memory");
    } else {
        apic_write(APIC_LVT_TIMER, TRAP_TIMER);
    }
}
