/* Ring 3 for a moment. */
#include "user.h"

#include "descriptors.h"
#include "paging.h"
#include "test.h"

__attribute__((aligned(USER_BYTES))) u8 user_page[USER_BYTES];

static word kernel_sp;
static u8 trap_stack[4096] __attribute__((aligned(16)));

#define TEXT_(value) #value
#define TEXT(value)  TEXT_(value)

#if LONG64
#define STACK_TOP tss.rsp[0]
#define SAVE      "pushq %rbx\n\tpushq %rbp\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
#define RESTORE   "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbp\n\tpopq %rbx\n\t"
#else
#define STACK_TOP tss.esp0
#define SAVE      "pushl %ebx\n\tpushl %ebp\n\tpushl %esi\n\tpushl %edi\n\t"
#define RESTORE   "popl %edi\n\tpopl %esi\n\tpopl %ebp\n\tpopl %ebx\n\t"
#endif

struct user_entry {
    word ip, cs, flags, sp, ss;
};

/* Saves the registers that C preserves and its stack pointer, then IRETs through `entry` (RDI, or EAX). */
void user_enter(const struct user_entry *entry, word argument, word *save);
/* Back to the caller of user_enter() on the stack saved there. */
void user_back(word sp) __attribute__((noreturn));

#if LONG64
asm(".text\nuser_enter:\n\t" SAVE
    "movq %rsp, (%rdx)\n\tmovq %rsi, %rax\n\tmovq %rdi, %rsp\n\tiretq\n"
    "user_back:\n\tmovq %rdi, %rsp\n\tmovl $" TEXT(
        KERNEL_DS) ", %eax\n\tmovl %eax, %ss\n\tmovl %eax, %ds\n\tmovl %eax, %es\n\t"
                   "movl %eax, %fs\n\tmovl %eax, %gs\n\t" RESTORE "ret");
#else
asm(".text\nuser_enter:\n\t" SAVE "movl %esp, (%ecx)\n\tmovl %eax, %esp\n\tmovl $" TEXT(
    USER_DS) ", %eax\n\tmovl %eax, %ds\n\tmovl %eax, %es\n\t"
             "movl %eax, %fs\n\tmovl %eax, %gs\n\tmovl %edx, %eax\n\tiretl\n"
             "user_back:\n\tmovl %eax, %esp\n\tmovl $" TEXT(
                 KERNEL_DS) ", %eax\n\tmovl %eax, %ds\n\tmovl %eax, %es\n\t"
                            "movl %eax, %fs\n\tmovl %eax, %gs\n\t" RESTORE "ret");
#endif

static void user_leave(void) {
    user_back(kernel_sp);
}

void user_run(const char *start, const char *end, word flags, word argument) {
    for (u32 byte = 0; start + byte < end; byte++) {
        user_page[byte] = start[byte];
    }
    u8 *page = user_address();
    struct user_entry entry = {(word)page, USER_CS, flags, (word)page + USER_BYTES, USER_DS};
    STACK_TOP = (word)trap_stack + sizeof(trap_stack);
    trap_from_user = user_leave;
    trap_clear();
    user_enter(&entry, argument, &kernel_sp);
}
