/* Multiboot entry, interrupt stubs and the context switch. Flat segments, no paging. */
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
    lgdt gdtr
    ljmp $8, $1f
1:
    movl $16, %ecx
    movl %ecx, %ds
    movl %ecx, %es
    movl %ecx, %fs
    movl %ecx, %gs
    movl %ecx, %ss
    movl %ebx, %edx /* Multiboot information; its magic is in EAX */
    call main

/* void switch_stack(u32 *old, u32 new): EAX, EDX */
    .global switch_stack
switch_stack:
    pushl %ebx
    pushl %esi
    pushl %edi
    pushl %ebp
    movl %esp, (%eax)
    movl %edx, %esp
    popl %ebp
    popl %edi
    popl %esi
    popl %ebx
    ret

/* The first instructions of every task: EBX is its entry, ESI its argument. */
    .global task_first
task_first:
    sti
    movl %esi, %eax
    call *%ebx
    call task_exit

    .macro STUB number
stub\number:
    .if (\number == 8) || ((\number >= 10) && (\number <= 14)) || (\number == 17)
    .else
    pushl $0
    .endif
    pushl $\number
    jmp common
    .endm

    .altmacro
    .set number, 0
    .rept 48
    STUB %number
    .set number, number + 1
    .endr

/* The time stamp is taken first: it is what the latency of an interrupt is measured by. */
common:
    pushal
    rdtsc
    movl %edx, %ecx
    movl %eax, %edx
    movl %esp, %eax
    cld
    call interrupt_entry
    popal
    addl $8, %esp
    iretl

    .macro ENTRY number
    .long stub\number
    .endm

    .section .rodata
    .global stubs
    .balign 4
stubs:
    .set number, 0
    .rept 48
    ENTRY %number
    .set number, number + 1
    .endr

    .balign 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:
    .word 23
    .long gdt

    .bss
    .balign 16
    .space 8192
stack_top:

    .section .note.GNU-stack, "", @progbits
