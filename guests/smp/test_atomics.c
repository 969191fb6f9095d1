/* Locked instructions on RAM, all CPUs at once (SDM Vol. 3A, "Locked Atomic Operations"): no addition, bit or exchange is
 * lost. The subject `watched` does it on a page at WATCHED, which a monitor may make its emulator's business. */
#include "suite.h"

#define TURNS   2000
#define FEWER   100
#define WATCHED 0x700000u /* 4 KiB of RAM that nothing else uses */

struct words {
    volatile u64 xadd, increment, cmpxchg, sum, byte_sum, sub, cmpxchg8b, not_, xor_;
    volatile u64 lock, guarded;
    volatile u64 bits[CPUS_MAX];
    volatile u64 wide[2] __attribute__((aligned(16)));
};

static struct words *words;
static u32 turns;
static volatile u32 bits_wrong;

static void work(void) {
    u64 self = this_cpu();
    barrier();
    for (u32 turn = 0; turn < turns; turn++) {
        u64 one = 1;
        asm volatile("lock xaddq %0, %1" : "+r"(one), "+m"(words->xadd));
        asm volatile("lock incq %0" : "+m"(words->increment));
        u64 old = words->cmpxchg;
        bool done;
        do {
            asm volatile("lock cmpxchgq %3, %1; sete %2"
                         : "+a"(old), "+m"(words->cmpxchg), "=q"(done)
                         : "r"(old + 1));
        } while (!done);
        asm volatile("lock addq %1, %0" : "+m"(words->sum) : "r"(self + 1));
        asm volatile("lock addb $1, %0" : "+m"(*(volatile u8 *)&words->byte_sum));
        asm volatile("lock subl $1, %0" : "+m"(*(volatile u32 *)&words->sub));
        asm volatile("lock notw %0" : "+m"(*(volatile u16 *)&words->not_));
        asm volatile("lock xorq %1, %0" : "+m"(words->xor_) : "r"(1ull << self));
        u32 low = words->cmpxchg8b, high = words->cmpxchg8b >> 32;
        do {
            u64 next = (low | (u64)high << 32) + 0x100000001;
            asm volatile("lock cmpxchg8b %1; sete %2"
                         : "+a"(low), "+m"(words->cmpxchg8b), "=q"(done), "+d"(high)
                         : "b"((u32)next), "c"((u32)(next >> 32)));
        } while (!done);
        u64 wide_low = words->wide[0], wide_high = words->wide[1];
        do {
            asm volatile("lock cmpxchg16b %1; sete %2"
                         : "+a"(wide_low), "+m"(*(volatile __int128 *)words->wide), "=q"(done),
                         "+d"(wide_high)
                         : "b"(wide_low + 1), "c"(wide_high + 2));
        } while (!done);
        /* Its own bit of a word: set, and clear again. */
        bool was, is;
        asm volatile("lock btsq %2, %0; setc %1"
                     : "+m"(words->bits[turn % CPUS_MAX]), "=q"(was)
                     : "r"(self));
        asm volatile("lock btrq %2, %0; setc %1"
                     : "+m"(words->bits[turn % CPUS_MAX]), "=q"(is)
                     : "r"(self));
        if (was || !is) {
            __atomic_add_fetch(&bits_wrong, 1, __ATOMIC_SEQ_CST);
        }
        /* A lock by XCHG around an addition that is not atomic. */
        u64 taken;
        do {
            taken = 1;
            asm volatile("xchgq %0, %1" : "+r"(taken), "+m"(words->lock));
            if (taken) {
                pause();
            }
        } while (taken);
        words->guarded = words->guarded + 1;
        asm volatile("movq $0, %0" : "=m"(words->lock));
    }
}

static u64 bits_left(void) {
    u64 left = 0;
    for (u32 word = 0; word < CPUS_MAX; word++) {
        left |= words->bits[word];
    }
    return left;
}

static void all(struct words *where_, u32 count) {
    words = where_;
    for (u32 byte = 0; byte < sizeof(*words); byte++) {
        ((volatile u8 *)words)[byte] = 0;
    }
    turns = count;
    bits_wrong = 0;
    run_everywhere(work);
    u64 want = (u64)count * cpus;
    check("XADD", words->xadd, want);
    check("INC", words->increment, want);
    check("CMPXCHG", words->cmpxchg, want);
    check("ADD", words->sum, (u64)count * cpus * (cpus + 1) / 2);
    check("ADD of a byte", words->byte_sum, want & 0xff);
    check("SUB of 32 bits", words->sub, (u32)-want);
    check("NOT of 16 bits", words->not_, want & 1 ? 0xffff : 0);
    check("XOR", words->xor_, count & 1 ? ALL : 0);
    check("CMPXCHG8B", words->cmpxchg8b, want * 0x100000001);
    check("CMPXCHG16B", words->wide[0] << 32 | words->wide[1], want << 32 | want * 2);
    check("BTS and BTR", bits_wrong, 0);
    check("no bit is left", bits_left(), 0);
    check("XCHG as a lock", words->guarded, want);
}

void test_atomics(void) {
    static struct words here;
    all(&here, TURNS);
}

void test_watched(void) {
    all((struct words *)(word)WATCHED, FEWER);
}
