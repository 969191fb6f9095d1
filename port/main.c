// Start of the machine, and MicroPython's life cycle on it.
//
// Hardware is set up once; then every soft reset runs the loop again on a clean
// heap: _boot.py (frozen), boot.py, main.py, the prompt. The file system lives
// outside the heap and survives.
#include <string.h>
#include "py/builtin.h"
#include "py/compile.h"
#include "py/frozenmod.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/mperrno.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/readline/readline.h"
#include "shared/runtime/pyexec.h"
#include "port/apic.h"
#include "port/errors.h"
#include "port/exec.h"
#include "port/heap.h"
#include "port/memory.h"
#include "port/modcpu.h"
#include "port/multiboot.h"
#include "port/names.h"
#include "port/native.h"
#include "port/paging.h"
#include "port/prompt.h"
#include "port/qstrs.h"
#include "port/rtc.h"
#include "port/segments.h"
#include "port/softreset.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/uart.h"
#include "port/written.h"
#include "port/x86.h"

#define PYSTACK_SIZE  (512 * 1024)
#define STACK_RESERVE 32768 // for C below the deepest Python frame, and interrupts

extern char boot_stack_end[];
static char pystack[PYSTACK_SIZE] __attribute__((aligned(16)));

void vmx_shutdown(void);

static void print_banner(void) {
    char brand[49] = "";
    if (cpuid(0x80000000, 0).eax >= 0x80000004) {
        for (unsigned i = 0; i < 3; i++) {
            cpuid_t r = cpuid(0x80000002 + i, 0);
            memcpy(brand + 16 * i, &r, sizeof(r));
        }
    }
    const char *name = brand;
    while (*name == ' ') {
        name++;
    }
    uint64_t ram = 0;
    for (unsigned i = 0; i < multiboot.ranges_count; i++) {
        ram += multiboot.ranges[i].type == MULTIBOOT_RAM ? multiboot.ranges[i].length : 0;
    }
    mp_printf(&mp_plat_print, "\nPcanel/Py on %s, %u MHz, %u MiB\n", name,
        (unsigned)((tsc_hz + 500000) / 1000000), (unsigned)(ram >> 20));
    if (multiboot.truncated) {
        mp_printf(
            &mp_plat_print, "warning: more boot modules or memory ranges than this image keeps\n");
    }
}

// The monitor leaves VMX operation before the heap with its objects goes away.
__attribute__((weak)) void vmx_shutdown(void) {
}

// Imports _boot, so that its names stay out of __main__.
static void run_boot_module(void) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_import_name(MP_QSTR__boot, mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

// Runs main.py of the file system if there is one, else the frozen one.
static int run_main(void) {
    if (mp_import_stat("main.py") == MP_IMPORT_STAT_FILE) {
        return pyexec_file("main.py");
    }
    if (mp_find_frozen_module("main.py", NULL, NULL) == MP_IMPORT_STAT_FILE) {
        return pyexec_frozen_module("main.py", true);
    }
    return 1;
}

// The prompt. An exception gets here if it was raised while the prompt waited, by the
// idle hook for instance; it ends neither the prompt nor what else runs, SystemExit included.
static int run_prompt(void) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        int ret =
            pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
        nlr_pop();
        return (ret & PYEXEC_FORCED_EXIT) && !softreset_wanted() ? 0 : ret;
    }
    mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    return 0;
}

static void run_python(void) {
    run_boot_module();
    int ret = 1;
    if (mp_import_stat("boot.py") == MP_IMPORT_STAT_FILE) {
        ret = pyexec_file("boot.py");
    }
    if (!(ret & PYEXEC_FORCED_EXIT) && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
        ret = run_main();
    }
    while (!(ret & PYEXEC_FORCED_EXIT)) {
        ret = run_prompt();
    }
}

static void start_hardware(void) {
    static const uint32_t mxcsr = MXCSR_RESET; // as after reset; firmware may have changed it
    __asm volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    segments_init();
    if (cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE) {
        write_cr4(read_cr4() | CR4_OSXSAVE);
    }
    if (cpuid(1, 0).edx & CPUID_1_EDX_MCE) {
        write_cr4(read_cr4() | CR4_MCE); // without, a machine check shuts the CPU down
    }
    apic_init();
    uart_init();
    timer_init();
    rtc_init();
}

void port_main(uint32_t magic, uint64_t information);
void port_main(uint32_t magic, uint64_t information) {
    bool loader_known = multiboot_init(magic, information);
    start_hardware();
    if (!loader_known) {
        panic("not started by a Multiboot loader", NULL);
    }
    if (!memory_init()) {
        panic("too little memory below 4 GiB for heap=, disk= and exec=", NULL);
    }
    paging_init();
    irq_enable();
    memset((void *)memory.disk.hpa, 0, 4096); // a file system is never left over from before
    print_banner();

    native_init();
    mp_stack_set_top(boot_stack_end);
    mp_stack_set_limit(BOOT_STACK_SIZE - STACK_RESERVE);
    for (;;) {
        written_init();
        exec_init();
        gc_init((void *)memory.heap.hpa, (void *)(memory.heap.hpa + memory.heap.size));
        heap_init();
        mp_pystack_init(pystack, pystack + sizeof(pystack));
        mp_init();
        qstrs_begin();
        names_init();
        cpu_module_init();
        readline_init0();
        prompt_init();
        errors_init();
        run_python();
        prompt_keep();
        mp_printf(&mp_plat_print, "MPY: soft reboot\n");
        vmx_shutdown();
        gc_sweep_all();
        mp_deinit();
    }
}

void nlr_jump_fail(void *val) {
    (void)val;
    panic("uncaught Python exception", NULL);
}
