/* The first process of the Linux whose boot is measured: says what the TSC was when it came, and switches off. */
#include <stdio.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>
#include <x86intrin.h>

int main(void) {
    unsigned long long tsc = __rdtsc();
    printf("first: init at tsc %llu\n", tsc);
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
    reboot(RB_POWER_OFF);
    return 1;
}
