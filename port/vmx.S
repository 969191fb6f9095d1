// Entry to the guest and return: the code just before VMLAUNCH or VMRESUME, and just
// after the exit. HOST_RIP of the VMCS is vmx_exit or one of its variants.
//
// int vmx_guest(vcpu_frame_t *frame)
//   0 after an exit, 1 after VMfailInvalid, 2 after VMfailValid.
// Called and left with interrupts off. HOST_RSP is written only when it moved.
//
// There are variants of both, so that mitigations of speculative execution (VCPU_MITIGATE_...) cost
// nothing where they are off. vmx.mitigate() chooses the entry, HOST_RIP the exit; any two fit together.

#include "port/segments.h"

#define GPR(n) ((n) * 8)
#define RCX 1
#define RDX 2
#define RBX 3
#define RBP 5
#define RSI 6
#define RDI 7
#include "shared_constants.h"

#define RSB_ENTRIES 32

    .text
vmx_verw_selector:
    .word   HOST_DS

    .macro  ENTER name, verw
    .globl  \name
    .type   \name, @function
\name:
    push    %rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    push    %rdi                        // vmx_exit finds the frame here

    cmp     %rsp, FRAME_HOST_RSP(%rdi)
    je      1f
    mov     $HOST_RSP, %eax
    vmwrite %rsp, %rax
    jbe     vmx_fail
    mov     %rsp, FRAME_HOST_RSP(%rdi)
1:
    cmpl    $1, FRAME_LAUNCHED(%rdi)    // CF: VMLAUNCH; neither the moves below nor VERW change it
    mov     GPR(0)(%rdi), %rax
    mov     GPR(RCX)(%rdi), %rcx
    mov     GPR(RDX)(%rdi), %rdx
    mov     GPR(RBX)(%rdi), %rbx
    mov     GPR(RBP)(%rdi), %rbp
    mov     GPR(RSI)(%rdi), %rsi
    mov     GPR(8)(%rdi), %r8
    mov     GPR(9)(%rdi), %r9
    mov     GPR(10)(%rdi), %r10
    mov     GPR(11)(%rdi), %r11
    mov     GPR(12)(%rdi), %r12
    mov     GPR(13)(%rdi), %r13
    mov     GPR(14)(%rdi), %r14
    mov     GPR(15)(%rdi), %r15
    mov     GPR(RDI)(%rdi), %rdi
    .if     \verw
    verw    vmx_verw_selector(%rip)     // after all loads of the monitor's data
    .endif
    jb      2f
    vmresume
    jmp     vmx_fail
2:
    vmlaunch
    jmp     vmx_fail
    .size   \name, . - \name
    .endm

    ENTER   vmx_guest, 0
    ENTER   vmx_guest_verw, 1

    .type   vmx_fail, @function
vmx_fail:                               // CF: VMfailInvalid, ZF: VMfailValid
    mov     $1, %eax
    mov     $2, %ecx
    cmovnc  %ecx, %eax
    pop     %rdi
    jmp     vmx_return
    .size   vmx_fail, . - vmx_fail

// rsb, the return stack buffer: 0, left as it is; 1, one CALL without a RET, so that the next RET does not use a
// guest's entry; 2, all entries are filled.
    .macro  LEAVE name, clear, rsb
    .globl  \name
    .type   \name, @function
\name:
    xchg    %rdi, (%rsp)                // guest RDI to the stack, frame to RDI
    mov     %rax, GPR(0)(%rdi)
    mov     %rcx, GPR(RCX)(%rdi)
    mov     %rdx, GPR(RDX)(%rdi)
    mov     %rbx, GPR(RBX)(%rdi)
    mov     %rbp, GPR(RBP)(%rdi)
    mov     %rsi, GPR(RSI)(%rdi)
    mov     %r8, GPR(8)(%rdi)
    mov     %r9, GPR(9)(%rdi)
    mov     %r10, GPR(10)(%rdi)
    mov     %r11, GPR(11)(%rdi)
    mov     %r12, GPR(12)(%rdi)
    mov     %r13, GPR(13)(%rdi)
    mov     %r14, GPR(14)(%rdi)
    mov     %r15, GPR(15)(%rdi)
    pop     GPR(RDI)(%rdi)
    .if     \rsb == 1
    call    1f
    int3                                // only speculation gets here
1:  add     $8, %rsp
    lfence
    .elseif \rsb == 2
    mov     $(RSB_ENTRIES / 2), %ecx
1:  call    2f
    int3
2:  call    3f
    int3
3:  dec     %ecx
    jnz     1b
    add     $(RSB_ENTRIES * 8), %rsp
    lfence
    .endif
    xor     %eax, %eax
    .if     \clear                      // also those popped below: speculation may pass the RET before the POPs
    xor     %ecx, %ecx
    xor     %edx, %edx
    xor     %ebx, %ebx
    xor     %ebp, %ebp
    xor     %esi, %esi
    xor     %r8d, %r8d
    xor     %r9d, %r9d
    xor     %r10d, %r10d
    xor     %r11d, %r11d
    xor     %r12d, %r12d
    xor     %r13d, %r13d
    xor     %r14d, %r14d
    xor     %r15d, %r15d
    jmp     vmx_return
    .endif
    .size   \name, . - \name
    .endm

    LEAVE   vmx_exit_clear, 1, 0
    LEAVE   vmx_exit_call, 1, 1
    LEAVE   vmx_exit_fill, 1, 2
    LEAVE   vmx_exit, 0, 0              // falls through

    .type   vmx_return, @function
vmx_return:
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret
    .size   vmx_return, . - vmx_return

    .section .note.GNU-stack, "", @progbits
