/* Interrupt stubs of real mode: vector, registers, then trap_entry(frame). */
    .code16

    .macro STUB number
stub\number:
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
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movl %esp, %eax
    cld
    calll trap_entry
    popl %gs
    popl %fs
    popl %es
    popl %ds
    popal
    addl $4, %esp
    iretw

    .macro ENTRY number
    .word stub\number
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
