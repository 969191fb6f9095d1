// Interrupt and exception entry: one 16-byte stub a vector, one common path
// that saves every general register as a trap_frame_t (trap.h) for C.
// Source: SDM Vol. 3A, "Exception and Interrupt Handling in 64-bit Mode".

    .text
    .balign 16
    .globl trap_stubs
trap_stubs:
vector = 0
    .rept 256
    .balign 16
    // #DF #TS #NP #SS #GP #PF #AC #CP push an error code, all others get a zero.
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    pushq   $0
    .endif
    pushq   $vector
    jmp     trap_common
vector = vector + 1
    .endr

    .balign 16
trap_common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rbx
    push    %rbp
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    cld
    mov     %rsp, %rdi
    call    trap_dispatch
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rbp
    pop     %rbx
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp
    iretq

    .section .note.GNU-stack, "", @progbits
