/* Real mode. The monitor loads the whole image at 0x7c00; a PC's BIOS loads its first sector there, which
 * then reads the rest from the disk. A signature at the end shows which; it is used up, so that one left
 * in memory by an earlier start is not taken for this one. */
    .code16
    .section .boot, "ax"
    .global start
start:
    cli
    cld
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl $0x7c00, %esp
    ljmpw $0, $1f
1:
    cmpl $0x36315250, signature
    je loaded
    movw $packet, %si
    movb $0x42, %ah /* extended read, drive still in DL */
    int $0x13
    jc failed
    cmpl $0x36315250, signature
    jne failed
loaded:
    movl $0, signature
    cli
    movw $__bss_start, %di
    movw $__bss_bytes, %cx
    xorb %al, %al
    rep stosb
    calll main

failed:
    movb $'!', %al
    outb %al, $0xe9
    hlt
    jmp failed

    .balign 4
packet:
    .byte 16, 0
    .word __rest_sectors
    .word 0x7e00, 0
    .quad 1

    .org 510
    .word 0xaa55

    .section .signature, "a"
signature:
    .long 0x36315250
