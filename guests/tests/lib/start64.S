/* Multiboot entry in 32-bit protected mode, which goes on to 64-bit mode itself and calls main(Multiboot information). The
 * ELF file is an ELF32 container. MAPPED: pages of 2 MiB from 0, one to one; RIGHTS: low bits of all page-table entries. */
#ifndef MAPPED
#define MAPPED 8
#endif
#ifndef RIGHTS
#define RIGHTS 7
#endif
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
    lgdt boot_gdtr
    movl $0x20, %eax /* CR4.PAE */
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* IA32_EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmp $8, $1f
    .code64
1:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq $stack_top, %rsp
    movl %ebx, %edi
    call main

    .data
    .global boot_pml4, boot_gdt /* other processors start with them */
    .balign 4096
boot_pml4:
    .quad boot_pdpt + RIGHTS
    .balign 4096
boot_pdpt:
    .set offset, 0
    .rept (MAPPED + 511) / 512
    .quad boot_directories + offset + RIGHTS
    .set offset, offset + 0x1000
    .endr
    .balign 4096
boot_directories:
    .set gpa, 0
    .rept MAPPED
    .quad gpa + 0x80 + RIGHTS
    .set gpa, gpa + 0x200000
    .endr
    .balign 4096
boot_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
boot_gdtr:
    .word 23
    .long boot_gdt

    .bss
    .balign 16
    .space 16384
stack_top:

