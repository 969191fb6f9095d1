/* Two CPUs and a lock with a hole (race_turn.S): a kernel that breaks only in some orders of its CPUs.
 *
 * A round: CPU 1 sleeps in HLT, CPU 0 wakes it by an IPI, both take their turns, and CPU 0 looks at the balance. On the command
 * line: rounds=N (default 1), turns=N of each CPU in a round (default 4), lock=sound for the one without a hole, and post=1: after
 * each round VMCALL with RAX = 1000H, RBX 1 where the balance is wrong, RCX the balance, RDX what it should be; the answer 0 is
 * one more round, any other the end. Then it prints `race: N rounds, N broken`, and switches itself off.
 */
#include "console.h"
#include "cpus.h"
#include "descriptors.h"
#include "options.h"
#include "report.h"

#define CALL 0x1000

void main(const void *multiboot);
void race_turn(u64 turns);
void race_turn_sound(u64 turns);

extern volatile u64 balance;

static u64 turns;
static void (*turn)(u64 turns);
static volatile u32 woken, finished;

static bool wake(struct frame *frame) {
    (void)frame;
    apic_write(APIC_EOI, 0);
    woken++;
    return true;
}

/* CPU 1: it never comes back. */
static void second(void) {
    cli();
    for (u32 round = 1;; round++) {
        while (woken < round) {
            asm volatile("sti; hlt; cli" : : : "memory");
        }
        turn(turns);
        finished = round;
    }
}

static u64 post(bool broken) {
    u64 answer;
    asm volatile("vmcall"
                 : "=a"(answer)
                 : "0"(CALL), "b"((u64)broken), "c"(balance), "d"(2 * turns)
                 : "memory");
    return answer;
}

void main(const void *multiboot) {
    options_init(multiboot);
    console_init();
    write_cr0(read_cr0() & ~(word)(CR0_CD | CR0_NW));
    descriptors_init();
    traps_init();
    outb(0x21, 0xff); /* both 8259s masked */
    outb(0xa1, 0xff);
    apic_enable();
    u64 most = option_number("rounds", 1);
    bool posts = option_number("post", 0);
    turns = option_number("turns", 4);
    turn = option("lock") && option_lists("lock", "sound") ? race_turn_sound : race_turn;
    set_hook(VECTOR_IPI, wake);
    if (!cpus_start(2)) {
        lost("the second processor does not start", cpus, 2, 0);
    }
    cpu_give(1, second);
    u32 rounds = 0, broken = 0;
    for (bool again = true; again;) {
        balance = 0;
        rounds++;
        apic_send(APIC_ASSERT | VECTOR_IPI, 1);
        turn(turns);
        await(&finished, rounds, "the second processor does not come to its end");
        bool wrong = balance != 2 * turns;
        broken += wrong;
        again = posts ? post(wrong) == 0 : rounds < most;
    }
    print("race: ");
    print_number(rounds);
    print(" rounds, ");
    print_number(broken);
    print(" broken\n");
    console_drain();
    power_off();
}
