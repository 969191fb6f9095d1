/* Out of 64-bit mode into 32-bit code with the paging of CR4's bits, and back (SDM Vol. 3A, "IA-32e Mode Operation").
 * Everything that is used here lies below 4 GiB, one to one in both paging modes. */
#include "descriptors.h"

    .set EFER, 0xc0000080
    .set EFER_LME, 0x100
    .set CR0_PG, 0x80000000

    .text
    .code64
    .global legacy_run, legacy_read, legacy_read_once
/* (code: EDI, cr3: ESI, cr4: EDX, gpa: ECX, samples: R8, rounds: R9D) */
legacy_run:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, saved_rsp(%rip)
    movq %cr3, %rax
    movl %eax, saved_cr3(%rip)
    movq %cr4, %rax
    movl %eax, saved_cr4(%rip)
    movl %edx, legacy_cr4(%rip)
    movl %r9d, legacy_rounds(%rip)
    movl %edi, %ebp
    movl %esi, %ebx
    movl %ecx, %esi
    movl %r8d, %edi
    movl $KERNEL_DS, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    ljmpl *to32(%rip)

    .code32
in32:
    call paging_off
    movl $EFER, %ecx
    rdmsr
    andl $~EFER_LME, %eax
    wrmsr
    movl %ebx, %cr3
    movl legacy_cr4, %eax
    movl %eax, %cr4
    call paging_on
    movl legacy_rounds, %ecx
    call *%ebp
    call paging_off
    movl saved_cr4, %eax
    movl %eax, %cr4
    movl saved_cr3, %eax
    movl %eax, %cr3
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    call paging_on
    ljmp $KERNEL_CS, $in64

paging_off:
    movl %cr0, %eax
    andl $~CR0_PG, %eax
    movl %eax, %cr0
    ret

paging_on:
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    ret

    .code64
in64:
    movq saved_rsp(%rip), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .code32
legacy_read:
    rdtsc
    movl %eax, %ebp
    movl (%esi), %edx
    rdtsc
    subl %ebp, %eax
    movl %eax, (%edi)
    addl $4, %edi
    decl %ecx
    jnz legacy_read
    ret

/* Two reads; the second is between Bochs's magic breakpoints. */
legacy_read_once:
    xorl %ecx, %ecx
1:  testl %ecx, %ecx
    jz 2f
    xchgw %bx, %bx
2:  movl (%esi), %edx
    testl %ecx, %ecx
    jz 3f
    xchgw %bx, %bx
    ret
3:  incl %ecx
    jmp 1b

    .data
to32:
    .long in32
    .word SEL_CODE32

    .bss
    .balign 8
saved_rsp:
    .space 8
saved_cr3:
    .space 4
saved_cr4:
    .space 4
legacy_cr4:
    .space 4
legacy_rounds:
    .space 4

    .section .note.GNU-stack, "", @progbits
