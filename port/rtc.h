// The machine's MC146818 clock, read once at boot.
#ifndef PCANEL_PORT_RTC_H
#define PCANEL_PORT_RTC_H

#include <stdint.h>

void rtc_init(void);
uint64_t rtc_boot_seconds(void); // since 1970, taken as UTC
uint64_t rtc_boot_tsc(void); // the TSC at that moment

#endif
