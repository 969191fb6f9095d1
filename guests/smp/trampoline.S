/* Where a SIPI leads: real mode, at the start of a page below 1 MiB. Notes the state of the CPU, goes on to 64-bit mode
 * with the tables of the one that has booted, and calls cpu_main(APIC ID) on a stack of its own. Position independent up
 * to 64-bit mode: DS is CS. */
#include "cpus.h"

#define AT(label) (label - trampoline)
#define NOTE(n)   (AT_START + (n) * 4)
#define SELECTOR(n) (AT_START + 48 + (n) * 2)

    .section .rodata
    .global trampoline, trampoline_end
    .balign 16
    .code16
trampoline:
    cli
    movl %eax, %cs:NOTE(0)
    movl %ebx, %cs:NOTE(1)
    movl %ecx, %cs:NOTE(2)
    movl %edx, %cs:NOTE(3)
    movl %esi, %cs:NOTE(4)
    movl %edi, %cs:NOTE(5)
    movl %ebp, %cs:NOTE(6)
    movl %esp, %cs:NOTE(7)
    movl %cr0, %eax
    movl %eax, %cs:NOTE(8)
    movl %cr2, %eax
    movl %eax, %cs:NOTE(9)
    movl %cr3, %eax
    movl %eax, %cs:NOTE(10)
    movl %cr4, %eax
    movl %eax, %cs:NOTE(11)
    movw %cs, %ax
    movw %ax, %cs:SELECTOR(0)
    movw %ds, %cs:SELECTOR(1)
    movw %es, %cs:SELECTOR(2)
    movw %fs, %cs:SELECTOR(3)
    movw %gs, %cs:SELECTOR(4)
    movw %ss, %cs:SELECTOR(5)
    movw %ax, %ds
    movw %ax, %ss
    movw $AT_START, %sp
    pushfw
    popw %ax
    movw %ax, SELECTOR(6)
    call 1f
1:  popw %ax
    subw $AT(1b), %ax
    movw %ax, SELECTOR(7)
    sgdtl SELECTOR(8)
    sidtl SELECTOR(11)

    lgdtl AT(gdtr)
    movl $0x20, %eax /* CR4.PAE */
    movl %eax, %cr4
    movl AT(cr3), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* IA32_EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    andl $~0x60000000, %eax /* CD and NW */
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmpl $8, $long_mode

    .balign 8
gdtr:
    .word 23
    .long boot_gdt
cr3:
    .long boot_pml4
trampoline_end:

    .text
    .code64
long_mode:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $1, %eax
    cpuid
    shrl $24, %ebx
    movl %ebx, %edi
    leal 1(%rbx), %eax
    imull $STACK, %eax, %eax
    leaq stacks(%rax), %rsp
    call cpu_main

    .bss
    .global stacks
    .balign STACK
stacks:
    .space STACK * CPUS_MAX
