/* The excursion of the real-mode guest: 32-bit protected, PAE paging, compatibility, 64-bit, and back, then unreal
 * mode. The image is below 64 KiB and so every address is the same in all of them. Page tables stand in
 * conventional memory at 20000H, one to one for 8 MiB. */
#include "descriptors.h"

#define PML4 0x20000
#define PDPT 0x21000
#define DIRECTORY 0x22000
#define EFER 0xc0000080
#define FAR_AWAY 0x00a00000

#define PROTECTED_CR0 (excursion + 0)
#define PAE_CR0 (excursion + 4)
#define LONG_HIGH (excursion + 8)
#define COMPATIBILITY (excursion + 12)
#define BACK_CR0 (excursion + 16)
#define UNREAL (excursion + 20)

    .text
    .global excursion16
    .code16
excursion16:
    pushal
    lgdtl gdtr
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $KERNEL_CS, $protected

    .code32
protected:
    movl $KERNEL_DS, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %cr0, %eax
    movl %eax, PROTECTED_CR0

    movl $PML4, %edi
    xorl %eax, %eax
    movl $3 * 1024, %ecx
    rep stosl
    movl $PDPT + 3, PML4
    movl $DIRECTORY + 1, PDPT /* P alone: PAE reserves W, and CR0.WP is clear */
    movl $0x00000083, DIRECTORY
    movl $0x00200083, DIRECTORY + 8
    movl $0x00400083, DIRECTORY + 16
    movl $0x00600083, DIRECTORY + 24

    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $PDPT, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movl %cr0, %eax
    movl %eax, PAE_CR0
    andl $0x7fffffff, %eax
    movl %eax, %cr0

    movl $PML4, %eax
    movl %eax, %cr3
    movl $EFER, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movl $5, %eax
    .byte 0x48 /* DEC EAX here, REX.W in 64-bit mode */
    nop
    movl %eax, COMPATIBILITY
    ljmp $SEL_CODE64, $long

    .code64
long:
    movabsq $0x1234567800000000, %rax
    shrq $32, %rax
    movl $LONG_HIGH, %ebx
    movl %eax, (%rbx)
    pushq $SEL_CODE32
    movl $compatibility, %eax
    pushq %rax
    lretq

    .code32
compatibility:
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $EFER, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    movl %cr4, %eax
    andl $~0x20, %eax
    movl %eax, %cr4
    movl $SEL_DATA16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    ljmp $SEL_CODE16, $protected16

    .code16
protected16:
    movw $KERNEL_DS, %ax
    movw %ax, %fs
    movl %cr0, %eax
    andl $~1, %eax
    movl %eax, %cr0
    ljmpw $0, $real
real:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr0, %eax
    movl %eax, BACK_CR0
    movl $FAR_AWAY, %ebx
    movl $0x600df00d, %fs:(%ebx)
    movl %fs:(%ebx), %eax
    movl %eax, UNREAL

    /* FS as it was, limit included. */
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    jmp 1f
1:
    movw $SEL_DATA16, %bx
    movw %bx, %fs
    andl $~1, %eax
    movl %eax, %cr0
    jmp 1f
1:
    xorw %ax, %ax
    movw %ax, %fs
    popal
    retl

    .section .rodata
    .balign 4
gdtr:
    .word GDT_SLOTS * 8 - 1
    .long gdt
