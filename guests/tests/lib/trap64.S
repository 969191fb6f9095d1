/* Interrupt stubs of 64-bit mode: error code (0 where there is none), vector, registers, then
 * trap_entry(frame). */
    .macro STUB number
stub\number:
    .if (\number == 8) || ((\number >= 10) && (\number <= 14)) || (\number == 17)
    .else
    pushq $0
    .endif
    pushq $\number
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
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    cld
    call trap_entry
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

    .macro ENTRY number
    .quad stub\number
    .endm

    .section .rodata
    .global trap_stubs
    .balign 8
trap_stubs:
    .set number, 0
    .rept 64
    ENTRY %number
    .set number, number + 1
    .endr
