/* Ring 3 for a moment: a snippet of position-independent code between two labels. */
#ifndef TESTS_USER_H
#define TESTS_USER_H

#include "types.h"

#define USER_BYTES 4096

/* Copies the code to the user page and runs it in ring 3 with these flags (IOPL 0) and `argument` in EAX. It ends
 * with the first trap of any kind, which `trap` then describes; a snippet that is done executes INT VECTOR_USER. */
void user_run(const char *start, const char *end, word flags, word argument);

/* Address of the page that user code runs in and that its stack ends in. */
extern u8 user_page[USER_BYTES];

/* Names a snippet: start and end are name_start and name_end. */
#define USER_CODE(name, text)                                                                      \
    extern const char name##_start[], name##_end[];                                                \
    asm(".pushsection .rodata\n" #name "_start:\n\t" text "\n" #name "_end:\n.popsection")

#endif
