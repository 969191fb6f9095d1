/* Interrupt stubs of 32-bit protected mode: error code (0 where there is none), vector, registers, then
 * trap_entry(frame). */
#include "descriptors.h"

    .macro STUB number
stub\number:
    .if (\number == 8) || ((\number >= 10) && (\number <= 14)) || (\number == 17)
    .else
    pushl $0
    .endif
    pushl $\number
    jmp common
    .endm

    .text
    .altmacro
    .set number, 0
    .rept 64
    STUB %number
    .set number, number + 1
    .endr

common:
    pushal
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    movl $KERNEL_DS, %eax
    movw %ax, %ds
    movw %ax, %es
    movl %esp, %eax
    cld
    call trap_entry
    popl %gs
    popl %fs
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl

    .macro ENTRY number
    .long stub\number
    .endm

    .section .rodata
    .global trap_stubs
    .balign 4
trap_stubs:
    .set number, 0
    .rept 64
    ENTRY %number
    .set number, number + 1
    .endr
