/* A guest that uses all the time that it gets, and notes when it did not get any. Real mode, loaded at 7C00H.
 *
 * Each time that two reads of the TSC lie further apart than GAP, both go into a ring of 256 entries at RING: 16 bytes, the
 * TSC before and behind the gap. The number of gaps is at COUNT.
 */
    .set COUNT, 0x7f00
    .set RING, 0x8000
    .set RING_END, 0x9000
    .set GAP, 400

    .text
    .code16
    xorw %ax, %ax
    movw %ax, %ds
    movl %eax, COUNT
    movw $RING, %di
    rdtsc
    movl %eax, %esi
    movl %edx, %ebp
turn:
    rdtsc
    movl %eax, %ecx
    subl %esi, %ecx
    cmpl $GAP, %ecx
    ja gap
    movl %eax, %esi
    movl %edx, %ebp
    jmp turn
gap:
    movl %esi, (%di)
    movl %ebp, 4(%di)
    movl %eax, 8(%di)
    movl %edx, 12(%di)
    movl %eax, %esi
    movl %edx, %ebp
    incl COUNT
    addw $16, %di
    cmpw $RING_END, %di
    jb turn
    movw $RING, %di
    jmp turn

    .section .note.GNU-stack, "", @progbits
