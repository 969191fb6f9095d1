// Console, clock and waiting for MicroPython.
//
// The wall clock is the MC146818's at boot plus the TSC since. Waiting of any kind
// ends in idle_wait(), which runs guests (the idle hook) or halts.
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "lib/oofatfs/ff.h"
#include "port/budget.h"
#include "port/idle.h"
#include "port/prompt.h"
#include "port/rtc.h"
#include "port/timer.h"
#include "port/uart.h"
#include "shared/timeutils/timeutils.h"

#define MS_MAX     (1ll << 40)
#define LOOK_CHARS (32) // printed between two readings of the clock

static uint64_t scale(uint64_t ticks, uint64_t hz) {
    return mul_div(ticks, hz, tsc_hz);
}

int mp_hal_stdin_rx_chr(void) {
    preempt_look(); // many characters may be waiting
    // Lines that are typed ahead leave no idle time, in which garbage is collected otherwise.
    if (budget_overdue()) {
        idle_wait(0, true);
    }
    for (;;) {
        int c = prompt_pasted();
        if (c < 0) {
            c = uart_rx_char(0);
        }
        if (c >= 0) {
            return c;
        }
        // At the prompt (where Ctrl-C is a character) there is nothing to interrupt.
        if (MP_STATE_VM(sched_state) == MP_SCHED_PENDING) {
            idle_awake();
        }
        mp_handle_pending(mp_interrupt_char >= 0);
        idle_wait(0, true);
    }
}

// Printing a line takes milliseconds: guests of higher priority preempt it.
static void wait_for_room(void) {
    preempt_look();
    bool preempts = preempt_at != 0 && preempt_holds == 0;
    if (preempts) {
        timer_arm(preempt_at);
    }
    irq_disable();
    if (uart_tx_room(0) == 0 && !preempt_due()) {
        irq_enable_and_halt();
    }
    irq_enable();
    if (preempts) {
        timer_arm(0);
    }
}

// Whether a KeyboardInterrupt of Ctrl-C is pending. The next bytecode raises it; until then output, of a long repr for
// instance, is dropped.
static bool interrupted(void) {
    return mp_interrupt_char >= 0 && MP_STATE_MAIN_THREAD(mp_pending_exception) ==
                                         MP_OBJ_FROM_PTR(&MP_STATE_VM(mp_kbd_exception));
}

mp_uint_t mp_hal_stdout_tx_strn(const char *str, size_t len) {
    for (size_t i = 0; i < len; i++) {
        while (!uart_tx_char(0, str[i])) {
            if (interrupted()) {
                return len;
            }
            wait_for_room();
        }
        // Also for a single character: a repr is printed by one call each.
        if (i % LOOK_CHARS == 0) {
            preempt_look();
        }
    }
    return len;
}

void mp_hal_move_cursor_back(unsigned pos) {
    if (pos <= 4) {
        mp_hal_stdout_tx_strn("\b\b\b\b", pos);
    } else {
        mp_printf(&mp_plat_print, "\x1b[%uD", pos);
    }
}

void mp_hal_erase_line_from_cursor(unsigned chars) {
    (void)chars;
    mp_hal_stdout_tx_strn("\x1b[K", 3);
}

uintptr_t mp_hal_stdio_poll(uintptr_t poll_flags) {
    uintptr_t ready = 0;
    if ((poll_flags & MP_STREAM_POLL_RD) && uart_rx_any(0) != 0) {
        ready |= MP_STREAM_POLL_RD;
    }
    if ((poll_flags & MP_STREAM_POLL_WR) && uart_tx_room(0) != 0) {
        ready |= MP_STREAM_POLL_WR;
    }
    return ready;
}

mp_uint_t mp_hal_ticks_ms(void) {
    return scale(rdtsc(), 1000);
}

mp_uint_t mp_hal_ticks_us(void) {
    return scale(rdtsc(), 1000000);
}

uint64_t mp_hal_time_ns(void) {
    return rtc_boot_seconds() * 1000000000ull + scale(rdtsc() - rtc_boot_tsc(), 1000000000);
}

static void delay_until(uint64_t deadline) {
    while (rdtsc() < deadline) {
        mp_handle_pending(true);
        idle_wait(deadline, false);
    }
    mp_handle_pending(true);
}

void mp_hal_delay_ms(mp_uint_t ms) {
    delay_until(rdtsc() + timer_us(1000 * MIN(ms, MS_MAX)));
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t deadline = rdtsc() + timer_us(us);
    if (us < 100) {
        while (rdtsc() < deadline) {
            __asm volatile("pause");
        }
    } else {
        delay_until(deadline);
    }
}

// The caller has just polled its streams. Input that is there now belongs to other streams or
// arrived since: the caller polls again a millisecond later.
void mp_port_wait_ms(intptr_t timeout_ms) {
    bool unread = uart_rx_any(0) != 0;
    if (unread && timeout_ms != 0) {
        timeout_ms = 1;
    }
    idle_wait(timeout_ms < 0 ? 0 : rdtsc() + timer_us(1000 * MIN(timeout_ms, MS_MAX)), !unread);
}

// The time stamp of FAT directory entries.
DWORD get_fattime(void) {
    timeutils_struct_time_t tm;
    timeutils_seconds_since_epoch_to_struct_time(mp_hal_time_ns() / 1000000000, &tm);
    return (tm.tm_year - 1980) << 25 | tm.tm_mon << 21 | tm.tm_mday << 16 | tm.tm_hour << 11 |
           tm.tm_min << 5 | tm.tm_sec / 2;
}
