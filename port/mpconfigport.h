// MicroPython's configuration for Pcanel/Py.
#include <stdint.h>
#include <stddef.h>
#include <alloca.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
// Only half of the entries are ever used (MAP_CACHE_OFFSET): with the default of 128, names of devices evict each
// other.
#define MICROPY_OPT_MAP_LOOKUP_CACHE_SIZE (1024)
#define MICROPY_LOADED_MODULES_DICT_SIZE  (293) // as large as it becomes: to grow takes 34,000 ticks

// Memory, emitters, and how code is run.
#define MICROPY_ENABLE_GC           (1)
#define MICROPY_GC_STACK_ENTRY_TYPE uint32_t
// Nearly every object fits one block: a search for several free neighbours is slow in a dense heap (room.c).
#define MICROPY_BYTES_PER_GC_BLOCK (128)
// Frames of Python functions lie on a stack of their own, not in the heap.
#define MICROPY_ENABLE_PYSTACK                 (1)
#define MICROPY_ALLOC_GC_STACK_SIZE            (4096)
#define MICROPY_ALLOC_PATH_MAX                 (256)
#define MICROPY_QSTR_BYTES_IN_HASH             (2)
#define MICROPY_MEM_STATS                      (0)
#define MICROPY_EMIT_X64                       (1)
#define MICROPY_PERSISTENT_CODE_LOAD           (1)
#define MICROPY_READER_VFS                     (1)
#define MICROPY_OPT_COMPUTED_GOTO              (1)
#define MICROPY_NLR_X64                        (1)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF (1)
#define MICROPY_EMERGENCY_EXCEPTION_BUF_SIZE   (512)
#define MICROPY_ENABLE_VM_ABORT                (1)
#define MICROPY_SCHEDULER_DEPTH                (8)
#define MICROPY_REPL_STDIN_BUFFER_MAX          (1024)
#define MICROPY_READLINE_HISTORY_SIZE          (100)
#define MICROPY_REPL_EMACS_WORDS_MOVE          (1)
#define MICROPY_REPL_EMACS_EXTRA_WORDS_MOVE    (1)
#define MICROPY_HAL_HAS_VT100                  (0) // mphalport.h: its own breaks at 1000 characters
#define MICROPY_WARNINGS                       (1)
#define MICROPY_ERROR_REPORTING                (MICROPY_ERROR_REPORTING_DETAILED)

void exec_alloc(size_t min_size, void **ptr, size_t *size);
void exec_free(void *ptr, size_t size);
#define MP_PLAT_ALLOC_EXEC(min_size, ptr, size) exec_alloc(min_size, ptr, size)
#define MP_PLAT_FREE_EXEC(ptr, size)            exec_free(ptr, size)

// Preemption points of the interpreter: a guest of higher priority does not wait until another's handler has ended.
#include "port/preempt.h"
#define MICROPY_VM_HOOK_LOOP   preempt_look();
#define MICROPY_VM_HOOK_RETURN preempt_look();
#define MICROPY_VM_HOOK_INIT                                                                       \
    preempt_look(); // at the beginning of a function, a closure, or a part of a comprehension
#include "port/collect.h"
#define MICROPY_GC_HOOK_LOOP(i) collect_look(i)

// Numbers.
#define MICROPY_LONGINT_IMPL           (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_FLOAT_IMPL             (MICROPY_FLOAT_IMPL_DOUBLE)
#define MICROPY_FLOAT_USE_NATIVE_FLT16 (0)
#define MP_NEED_LOG2                   (1)

// Libc.
#define MICROPY_USE_INTERNAL_ERRNO  (1)
#define MICROPY_USE_INTERNAL_PRINTF (1)

// Built-in functions and modules.
#define MICROPY_PY_BUILTINS_HELP_TEXT           pcanel_help_text
#define MICROPY_PY_SYS_PLATFORM                 "pcanel"
#define MICROPY_PY_SYS_STDIO_BUFFER             (1)
#define MICROPY_PY_MICROPYTHON_HEAP_LOCKED      (1)
#define MICROPY_PY_IO_BUFFEREDWRITER            (1)
#define MICROPY_PY_DEFLATE_COMPRESS             (1)
#define MICROPY_PY_OS_SYNC                      (1)
#define MICROPY_PY_OS_UNAME                     (1)
#define MICROPY_PY_OS_URANDOM                   (1)
#define MICROPY_PY_OS_INCLUDEFILE               "port/modos.c"
#define MICROPY_PY_RE_MATCH_GROUPS              (1)
#define MICROPY_PY_RE_MATCH_SPAN_START_END      (1)
#define MICROPY_PY_HASHLIB_MD5                  (0)
#define MICROPY_PY_HASHLIB_SHA1                 (0)
#define MICROPY_PY_CRYPTOLIB                    (0)
#define MICROPY_EPOCH_IS_1970                   (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS            (1)
#define MICROPY_PY_TIME_INCLUDEFILE             "port/modtime.c"
#define MICROPY_PY_RANDOM_SEED_INIT_FUNC        (pcanel_random())

#define MICROPY_PY_MACHINE             (1)
#define MICROPY_PY_MACHINE_INCLUDEFILE "port/modmachine.c"
#define MICROPY_PY_MACHINE_RESET       (1)
#define MICROPY_PY_MACHINE_MEMX        (1)
#define MICROPY_PY_MACHINE_PIN_BASE    (1)
#define MICROPY_PY_MACHINE_SIGNAL      (1)

// Ends of scripts and of the prompt.
void softreset_after_exec(unsigned exec_flags, void *error, int *ret);
#define MICROPY_BOARD_AFTER_PYTHON_EXEC(input_kind, exec_flags, error, ret)                        \
    softreset_after_exec(exec_flags, error, ret)

// File systems.
#define MICROPY_VFS                 (1) // VfsFat: see Makefile
#define MICROPY_FATFS_ENABLE_LFN    (2)
#define MICROPY_FATFS_LFN_CODE_PAGE 437
#define MICROPY_FATFS_RPATH         (2)

// Waiting: sleeps, select and asyncio all end up here, and run the idle hook.
void mp_port_wait_ms(intptr_t timeout_ms);
#define MICROPY_INTERNAL_WFE(timeout_ms) mp_port_wait_ms(timeout_ms)

#define MICROPY_HW_BOARD_NAME "Pcanel/Py"
#define MICROPY_HW_MCU_NAME   "x86-64"

typedef intptr_t mp_int_t;
typedef uintptr_t mp_uint_t;
typedef intptr_t mp_off_t;
#define MP_SSIZE_MAX (0x7fffffffffffffff)
#define UINT_FMT     "%lu"
#define INT_FMT      "%ld"

#define MP_STATE_PORT MP_STATE_VM

uint64_t pcanel_random(void);
