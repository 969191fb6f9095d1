// Source: MC146818 data sheet, "Address Map" and "Update Cycle". The century is
// taken as 20: the register for it is not part of the chip.
#include "py/obj.h"
#include "shared/timeutils/timeutils.h"
#include "port/rtc.h"
#include "port/x86.h"

#define UIP_TRIES 1000000 // an update takes 2 ms; a dead clock must not hang us

static struct { uint64_t seconds, tsc; } boot;

static uint8_t rtc_read(uint8_t index) {
    outb(PC_RTC, RTC_NMI_OFF | index);
    return inb(PC_RTC + 1);
}

static unsigned decode(uint8_t value, bool binary) {
    return binary ? value : (value >> 4) * 10 + (value & 15);
}

void rtc_init(void) {
    for (unsigned i = 0; i < UIP_TRIES && (rtc_read(RTC_A) & RTC_A_UIP); i++) {
    }
    boot.tsc = rdtsc();
    uint8_t control = rtc_read(RTC_B);
    bool binary = control & RTC_B_BINARY;
    uint8_t raw_hour = rtc_read(RTC_HOURS);
    unsigned hour = decode(raw_hour & ~RTC_PM, binary);
    if (!(control & RTC_B_24H)) {
        hour = hour % 12 + (raw_hour & RTC_PM ? 12 : 0);
    }
    boot.seconds = timeutils_seconds_since_epoch(2000 + decode(rtc_read(RTC_YEAR), binary),
        decode(rtc_read(RTC_MONTH), binary), decode(rtc_read(RTC_DAY), binary), hour,
        decode(rtc_read(RTC_MINUTES), binary), decode(rtc_read(RTC_SECONDS), binary));
}

uint64_t rtc_boot_seconds(void) {
    return boot.seconds;
}

uint64_t rtc_boot_tsc(void) {
    return boot.tsc;
}
