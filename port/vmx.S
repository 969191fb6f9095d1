// Into the guest and back: the only code that runs between VMLAUNCH or VMRESUME
// and the exit. The VMCS names vmx_exit as HOST_RIP.
//
// int vmx_guest(vcpu_frame_t *frame)
//   0 after an exit, 1 after VMfailInvalid, 2 after VMfailValid.
// Called and left with interrupts off. HOST_RSP is written only when it moved.

#define GPR(n) ((n) * 8)
#define RCX 1
#define RDX 2
#define RBX 3
#define RBP 5
#define RSI 6
#define RDI 7
#define FRAME_HOST_RSP 0x168
#define FRAME_LAUNCHED 0x170
#define HOST_RSP 0x6c14

    .text
    .globl  vmx_guest
    .globl  vmx_exit
    .type   vmx_guest, @function
    .type   vmx_exit, @function

vmx_guest:
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
    cmpl    $0, FRAME_LAUNCHED(%rdi)    // the moves below leave the flags alone
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
    je      2f
    vmresume
    jmp     vmx_fail
2:
    vmlaunch

vmx_fail:                               // CF: VMfailInvalid, ZF: VMfailValid
    mov     $1, %eax
    mov     $2, %ecx
    cmovnc  %ecx, %eax
    pop     %rdi
    jmp     vmx_return

vmx_exit:
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
    movl    $1, FRAME_LAUNCHED(%rdi)
    xor     %eax, %eax

vmx_return:
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret
    .size   vmx_guest, . - vmx_guest

    .section .note.GNU-stack, "", @progbits
