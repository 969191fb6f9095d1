/* What both CPUs do in the race: take the lock, add to the balance, release the lock, do something else.
 *
 * The lock has a hole: it is tested at race_test and set at race_set, and between the two another CPU may find it free too. If
 * that CPU stops between race_read and race_write, one addition is lost. void race_turn(u64 turns); race_turn_sound() is
 * the same with XCHG, and loses none. Some 70 instructions a turn.
 */
    .text
    .global race_turn, race_turn_sound, race_test, race_set, race_read, race_write, race_release
    .macro BODY read, write, release
\read:
    movq balance, %rax
    movl $8, %ecx /* what is added takes a while to find out */
1:  decl %ecx
    jnz 1b
    incq %rax
\write:
    movq %rax, balance
\release:
    movl $0, race_lock
    movl $20, %ecx
1:  decl %ecx
    jnz 1b
    .endm

race_turn:
race_test:
    cmpl $0, race_lock
    je 2f
    pause
    jmp race_test
2:  movl $1, %eax
    nop
race_set:
    movl %eax, race_lock
    BODY race_read, race_write, race_release
    decq %rdi
    jnz race_turn
    ret

race_turn_sound:
    movl $1, %eax
    xchgl %eax, race_lock
    testl %eax, %eax
    jz 2f
    pause
    jmp race_turn_sound
2:  BODY sound_read, sound_write, sound_release
    decq %rdi
    jnz race_turn_sound
    ret

    .data
    .global balance
    .balign 64
balance:
    .quad 0
race_lock:
    .long 0
