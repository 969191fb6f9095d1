/* Multiboot entry, 32-bit protected mode. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0x3, -(0x1badb002 + 0x3) /* page-aligned modules, memory map */

    .text
    .global start
start:
    cli
    cld
    movl $stack_top, %esp
    pushl $0
    popfl
    call main

    .bss
    .balign 16
    .space 16384
stack_top:

