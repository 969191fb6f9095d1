/* See low.h. Position: assembled anywhere, runs at LOW_CODE. */
#include "descriptors.h"
#include "low.h"

#define AT(label) (label - low_start + LOW_CODE)
#define ESP (LOW_RESULTS + 0)
#define IDT (LOW_RESULTS + 4)
#define PROTECTED_STACK (LOW_RESULTS + 12)
#define MSW (LOW_RESULTS + 16)
#define ALIAS (LOW_RESULTS + 20)
#define INTERRUPTS (LOW_RESULTS + 24)
#define UNREAL (LOW_RESULTS + 28)
#define REACHED (LOW_RESULTS + 32)

    .section .rodata
    .global low_start, low_end
low_start:
    .code32
    pushal
    movl %esp, ESP
    sidt IDT
    lidt AT(real_idt)
    movl $SEL_DATA16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl $LOW_STACK, %esp
    ljmp $SEL_CODE16, $AT(protected16)

    .code16
protected16:
    pushw $0x1234
    popw %ax
    movzwl %ax, %eax
    movl %eax, PROTECTED_STACK
    movl %cr0, %eax
    andl $~1, %eax
    movl %eax, %cr0
    ljmpw $0, $AT(real)
real:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    smsw %ax
    movl %eax, MSW
    movw $0x0910, %ax
    movw %ax, %fs
    movb $0x42, %fs:0x15
    movw $0x0911, %ax
    movw %ax, %fs
    movzbl %fs:0x05, %eax
    movl %eax, ALIAS
    movl $AT(real_interrupt), LOW_VECTOR * 4
    movl $0, INTERRUPTS
    int $LOW_VECTOR
    int $LOW_VECTOR

    /* Unreal: a flat FS loaded in protected mode keeps its limit in real mode. */
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    jmp 1f
1:
    movw $SEL_DATA32, %bx
    movw %bx, %fs
    andl $~1, %eax
    movl %eax, %cr0
    jmp 1f
1:
    movl $LOW_UNREAL, %ebx
    movl $0x600df00d, %fs:(%ebx)
    movl %fs:(%ebx), %eax
    movl %eax, UNREAL

    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $AT(protected32)

    .code32
protected32:
    movl $KERNEL_DS, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl ESP, %esp
    lidt IDT
    movl $1, REACHED
    popal
    ret

    .code16
real_interrupt:
    incl INTERRUPTS
    iretw

    .balign 4
real_idt:
    .word 0x3ff
    .long 0
low_end:
