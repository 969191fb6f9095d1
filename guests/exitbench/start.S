/* Multiboot entry in 32-bit protected mode, on to 64-bit mode with 4 GiB mapped one to one; stubs of the exceptions. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0x3, -(0x1badb002 + 0x3)

    .text
    .code32
    .global start
start:
    cli
    cld
    movl $stack_top, %esp
    pushl $0
    popfl
    lgdt gdtr
    movl $0x20, %eax /* CR4.PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* IA32_EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax /* Bochs's BIOS leaves CD and NW set */
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmp $8, $1f
    .code64
1:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $stack_top, %esp
    movl %ebx, %edi /* Multiboot information */
    call main

    .macro STUB number
stub\number:
    .if (\number == 8) || ((\number >= 10) && (\number <= 14)) || (\number == 17)
    .else
    pushq $0
    .endif
    pushq $\number
    jmp common
    .endm

    .altmacro
    .set number, 0
    .rept 32
    STUB %number
    .set number, number + 1
    .endr

common:
    popq %rdi
    popq %rsi
    popq %rdx
    andq $-16, %rsp
    call exception

    .macro ENTRY number
    .quad stub\number
    .endm

    .section .rodata
    .global exception_stubs
    .balign 8
exception_stubs:
    .set number, 0
    .rept 32
    ENTRY %number
    .set number, number + 1
    .endr

    .data
    .balign 4096
pml4:
    .quad pdpt + 3
    .balign 4096
pdpt:
    .quad directories + 0x0003, directories + 0x1003, directories + 0x2003, directories + 0x3003
    .balign 4096
directories:
    .set gpa, 0
    .rept 2048
    .quad gpa + 0x83
    .set gpa, gpa + 0x200000
    .endr
    .balign 8
gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr:
    .word 23
    .long gdt

    .bss
    .balign 16
    .space 16384
stack_top:

    .section .note.GNU-stack, "", @progbits
