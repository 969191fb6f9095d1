/* Formatted output to the console, and numbers read. */
#include <stdarg.h>

#include "print.h"
#include "kernel.h"
#include "uart.h"

static void put(char c) {
    if (c == '\n') {
        uart_write('\r');
    }
    uart_write(c);
}

static void put_padded(const char *text, u32 length, u32 width, bool left) {
    for (u32 pad = length; !left && pad < width; pad++) {
        put(' ');
    }
    for (u32 at = 0; at < length; at++) {
        put(text[at]);
    }
    for (u32 pad = length; left && pad < width; pad++) {
        put(' ');
    }
}

static void put_number(u64 value, u32 base, bool negative, u32 width, bool left) {
    char text[24];
    u32 at = sizeof(text);
    do {
        u64 rest = divide(value, base);
        text[--at] = "0123456789abcdef"[(u32)(value - rest * base)];
        value = rest;
    } while (value);
    if (negative) {
        text[--at] = '-';
    }
    put_padded(text + at, sizeof(text) - at, width, left);
}

static u32 length_of(const char *text) {
    u32 length = 0;
    while (text[length]) {
        length++;
    }
    return length;
}

void print(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        bool left = *++format == '-', wide = false;
        format += left;
        u32 width = 0;
        for (; *format >= '0' && *format <= '9'; format++) {
            width = width * 10 + *format - '0';
        }
        if (*format == 'l') {
            wide = true;
            format++;
        }
        if (*format == 's') {
            const char *text = va_arg(arguments, const char *);
            put_padded(text, length_of(text), width, left);
        } else if (*format == 'c') {
            put(va_arg(arguments, int));
        } else if (*format == 'd') {
            int value = va_arg(arguments, int);
            put_number(value < 0 ? -(u32)value : (u32)value, 10, value < 0, width, left);
        } else if (*format == 'u' || *format == 'x') {
            u64 value = wide ? va_arg(arguments, u64) : va_arg(arguments, u32);
            put_number(value, *format == 'u' ? 10 : 16, false, width, left);
        } else {
            put(*format);
        }
    }
    va_end(arguments);
}

u32 decimal(const char *text) {
    u64 value = 0;
    for (; *text >= '0' && *text <= '9' && value <= 0xffffffff; text++) {
        value = value * 10 + *text - '0';
    }
    return value <= 0xffffffff ? value : 0xffffffff;
}
