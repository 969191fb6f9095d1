/* Hardware task switches (SDM Vol. 3A, "Task Management"). In 32-bit modes only; 64-bit mode has none left. */
#include "descriptors.h"
#include "paging.h"
#include "test.h"

#if PROT
#define VECTOR_TASK 0x36
#define BUSY        0x2
#define PATTERN     0x600d0000u

static struct tss32 second, double_faulted;
static u8 second_stack[2048] __attribute__((aligned(16)));

/* What the second task saw when it ran. */
static struct {
    u32 runs, link, flags, eax, cr3, fs, ldt;
    u8 first_access, second_access;
    u16 task_register;
    bool task_switched;
} seen;

void task_body(u32 eax);
void task_body(u32 eax) {
    seen.runs++;
    seen.eax = eax;
    seen.link = second.link;
    seen.flags = read_flags();
    seen.task_switched = read_cr0() & CR0_TS;
    seen.first_access = descriptor_access(SEL_TSS);
    seen.second_access = descriptor_access(SEL_TASK);
    seen.cr3 = read_cr3();
    asm volatile("str %w0" : "=r"(seen.task_register));
    asm volatile("mov %%fs, %0" : "=r"(seen.fs));
    asm volatile("sldt %0" : "=r"(seen.ldt));
    asm volatile("clts");
}

/* The second task's code. task_nested goes back by IRET each time, task_jump by JMP; task_fault drops the error
 * code and makes the first task go on behind its ATTEMPT. */
void task_nested(void);
void task_jump(void);
void task_fault(void);
asm(".text\n"
    "task_nested: call task_body; iretl; jmp task_nested\n"
    "task_jump: call task_body; ljmp $0x28, $0; jmp task_jump\n"
    "task_fault: popl %eax; movl %eax, task_error; movl trap_resume, %eax; movl %eax, tss + 32; "
    "iretl; jmp task_fault");

volatile u32 task_error;

/* The second task's own CR3: in PAE a copy of the four pointers elsewhere. */
static word second_root(void) {
#if PAE
    static u64 copy[4] __attribute__((aligned(32)));
    for (u32 entry = 0; entry < COUNT(copy); entry++) {
        copy[entry] = pdpt[entry];
    }
    return (word)copy;
#else
    return paging_root();
#endif
}

static void prepare(void (*entry)(void)) {
    second = (struct tss32){
        .eip = (word)entry,
        .eflags = 2,
        .esp = (word)second_stack + sizeof(second_stack),
        .cr3 = second_root(),
        .eax = PATTERN,
        .cs = KERNEL_CS,
        .ds = KERNEL_DS,
        .es = KERNEL_DS,
        .ss = KERNEL_DS,
        .fs = SEL_DATA32,
        .gs = 0,
        .io_map = sizeof(second),
    };
    set_descriptor(SEL_TASK, (word)&second, 103, ACCESS_TSS, 0);
    tss.cr3 = paging_root();
    seen.runs = 0;
}

#define FAR_CALL(selector)                                                                         \
    asm volatile("lcall %0, $0" : : "i"(selector) : "eax", "ecx", "edx", "memory", "cc")

static void call(void) {
    prepare(task_nested);
    FAR_CALL(SEL_TASK);
    check("CALL runs the task", seen.runs, 1);
    check("with its registers", seen.eax, PATTERN);
    check("with NT set", seen.flags & FLAGS_NT, FLAGS_NT);
    check("with CR0.TS set", seen.task_switched, true);
    check("with the backlink", seen.link & 0xffff, SEL_TSS);
    check("with both TSSs busy", seen.first_access << 8 | seen.second_access,
        ACCESS_TSS_BUSY << 8 | ACCESS_TSS_BUSY);
    check("with its task register", seen.task_register, SEL_TASK);
    check("with its segments", seen.fs, SEL_DATA32);
    if (PAE) {
        check("with its CR3", seen.cr3, second.cr3);
    }
    check("IRET makes it free again", descriptor_access(SEL_TASK), ACCESS_TSS);
    check("and keeps the first one busy", descriptor_access(SEL_TSS), ACCESS_TSS_BUSY);
    check("and NT is clear again", read_flags() & FLAGS_NT, 0);
    check("and CR0.TS is set again", read_cr0() & CR0_TS, CR0_TS);
    asm volatile("clts");
    u16 task_register;
    asm volatile("str %w0" : "=r"(task_register));
    check("and the task register is back", task_register, SEL_TSS);
    FAR_CALL(SEL_TASK);
    asm volatile("clts");
    check("the task goes on where it was", seen.runs, 2);
}

static void registers_kept(void) {
    prepare(task_nested);
    u32 ebx = 0x11111111, esi = 0x22222222, edi = 0x33333333, ecx = 0x44444444, edx = 0x55555555,
        eax = 0x66666666;
    asm volatile("stc; lcall %6, $0; sbb %%eax, %%eax"
                 : "+b"(ebx), "+S"(esi), "+D"(edi), "+c"(ecx), "+d"(edx), "+a"(eax)
                 : "i"(SEL_TASK)
                 : "memory", "cc");
    asm volatile("clts");
    check_true("the first task's registers come back", ebx == 0x11111111 && esi == 0x22222222 &&
                                                           edi == 0x33333333 && ecx == 0x44444444 &&
                                                           edx == 0x55555555);
    excuse(on_tcg(), 0, "TCG loses the arithmetic flags in a task switch");
    check("and its flags", eax, ~0u);
}

static void jump(void) {
    prepare(task_jump);
    asm volatile("ljmp %0, $0" : : "i"(SEL_TASK) : "eax", "ecx", "edx", "memory", "cc");
    asm volatile("clts");
    check("JMP runs the task", seen.runs, 1);
    check("without NT", seen.flags & FLAGS_NT, 0);
    check("with the old TSS free", seen.first_access << 8 | seen.second_access,
        ACCESS_TSS << 8 | ACCESS_TSS_BUSY);
    check("and JMP comes back", descriptor_access(SEL_TSS) << 8 | descriptor_access(SEL_TASK),
        ACCESS_TSS_BUSY << 8 | ACCESS_TSS);
}

static void gates(void) {
    prepare(task_nested);
    set_gate(VECTOR_TASK, SEL_TASK, 0, ACCESS_TASK_GATE, 0);
    asm volatile("int %0" : : "i"(VECTOR_TASK) : "eax", "ecx", "edx", "memory", "cc");
    asm volatile("clts");
    check("INT through a task gate runs the task", seen.runs, 1);
    check("nested", seen.flags & FLAGS_NT, FLAGS_NT);
    gdt[SEL_GATE >> 3] = (u64)SEL_TASK << 16 | (u64)ACCESS_TASK_GATE << 40;
    FAR_CALL(SEL_GATE);
    asm volatile("clts");
    check("CALL through a task gate runs the task", seen.runs, 2);

    prepare(task_jump); /* IRET leaves the first TSS free, and so JMP leads back */
    asm volatile("pushfl; orl %0, (%%esp); popfl" : : "i"(FLAGS_NT) : "memory", "cc");
    tss.link = SEL_TASK;
    gdt[SEL_TASK >> 3] |= (u64)BUSY << 40;
    asm volatile("pushfl; pushl %0; pushl $1f; iretl; 1: addl $12, %%esp"
                 :
                 : "i"(KERNEL_CS)
                 : "eax", "ecx", "edx", "memory", "cc");
    asm volatile("clts");
    check("IRET with NT goes to the backlink's task", seen.runs, 1);
}

/* The exception itself, and a double fault, each through a task gate to a task of its own. */
static void faults(void) {
    prepare(task_fault);
    set_gate(GP, SEL_TASK, 0, ACCESS_TASK_GATE, 0);
    task_error = 0xbad;
    ATTEMPT("mov %0, %%es", : : "r"(0xf8) : "eax", "memory");
    asm volatile("clts; mov %0, %%es" : : "r"(KERNEL_DS));
    check("a fault's task finds the error code", task_error, 0xf8);

    prepare(task_fault);
    double_faulted = second;
    set_descriptor(SEL_DF_TASK, (word)&double_faulted, 103, ACCESS_TSS, 0);
    set_gate(DF, SEL_DF_TASK, 0, ACCESS_TASK_GATE, 0);
    set_gate(GP, KERNEL_CS, 0, ACCESS_INTERRUPT_GATE & ~0x80, 0);
    task_error = 0xbad;
    ATTEMPT("mov %0, %%es", : : "r"(0xf8) : "eax", "memory"); /* #GP, then #NP */
    traps_init();
    asm volatile("clts; mov %0, %%es" : : "r"(KERNEL_DS));
    check("a double fault's task finds error code 0", task_error, 0);
}

static void refused(void) {
    prepare(task_nested);
    gdt[SEL_TASK >> 3] |= (u64)BUSY << 40;
    ATTEMPT("lcall %0, $0", : : "i"(SEL_TASK) : "eax", "ecx", "edx", "memory");
    check_trap("CALL to a busy TSS is #GP", GP, SEL_TASK);
    prepare(task_nested);
    set_descriptor(SEL_TASK, (word)&second, 103, ACCESS_TSS & ~0x80, 0);
    ATTEMPT("lcall %0, $0", : : "i"(SEL_TASK) : "eax", "ecx", "edx", "memory");
    check_trap("CALL to a TSS that is not present is #NP", NP, SEL_TASK);
    prepare(task_nested);
    set_descriptor(SEL_TASK, (word)&second, 102, ACCESS_TSS, 0);
    ATTEMPT("lcall %0, $0", : : "i"(SEL_TASK) : "eax", "ecx", "edx", "memory");
    check_trap("CALL to a short TSS is #TS", TS, SEL_TASK);
    prepare(task_nested);
    asm volatile("pushfl; orl %0, (%%esp); popfl" : : "i"(FLAGS_NT) : "memory", "cc");
    tss.link = KERNEL_DS;
    ATTEMPT_THEN("movl %%esp, %%ebx; pushfl; pushl %0; pushl $97f; iretl", "movl %%ebx, %%esp",
                 :
                 : "i"(KERNEL_CS)
                 : "eax", "ebx", "ecx", "edx", "memory");
    asm volatile("pushfl; andl %0, (%%esp); popfl" : : "i"(~FLAGS_NT) : "memory", "cc");
    check_trap("IRET with NT to a bad backlink is #TS", TS, KERNEL_DS);
    tss.link = 0;
}

static volatile u32 debug_status;

static bool note_debug(struct frame *frame) {
    (void)frame;
    asm volatile("mov %%db6, %0" : "=r"(debug_status));
    asm volatile("mov %0, %%db6" : : "r"(0));
    return true;
}

static void debug_trap(void) {
    prepare(task_nested);
    second.trap = 1;
    debug_status = 0;
    asm volatile("mov %0, %%db6" : : "r"(0));
    set_hook(DB, note_debug);
    FAR_CALL(SEL_TASK);
    asm volatile("clts");
    set_hook(DB, NULL);
    excuse(on_tcg(), 0, "TCG does not look at a TSS's T flag");
    check("a TSS with the T flag traps, DR6.BT", debug_status & 0x8000, 0x8000);
    check("and its task runs", seen.runs, 1);
}

void test_tasks(void) {
    call();
    registers_kept();
    jump();
    gates();
    faults();
    refused();
    debug_trap();
}
#else
void test_tasks(void) {
#if LONG64
    static struct PACKED {
        u32 offset;
        u16 selector;
    } far = {0, SEL_SCRATCH};
    set_descriptor(SEL_SCRATCH, (word)&tss, 103, ACCESS_TSS, 0);
    ATTEMPT("lcall *%0", : : "m"(far) : "memory");
    check_trap("CALL to a TSS is #GP", GP, SEL_SCRATCH);
    ATTEMPT("ljmp *%0", : : "m"(far) : "memory");
    check_trap("JMP to a TSS is #GP", GP, SEL_SCRATCH);
    ATTEMPT_THEN("mov %%rsp, %%rbx; pushf; orl %0, (%%rsp); popf; iretq", "mov %%rbx, %%rsp",
                 :
                 : "i"(FLAGS_NT)
                 : "rbx", "memory");
    check_trap("IRET with NT is #GP", GP, 0);
    u16 task_register;
    asm volatile("str %w0" : "=r"(task_register));
    check("STR", task_register, SEL_TSS);
    check("LTR makes the TSS busy", descriptor_access(SEL_TSS), ACCESS_TSS_BUSY);
#else
    skip("all", "no tasks in real mode");
#endif
}
#endif
