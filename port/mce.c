// #MC in root mode: recorded here for vmm/machine_check.py, which also handles the exits of those in guests.
// Compiled without SSE: the registers may hold a guest's state.
// Source: SDM Vol. 3B, "Machine-Check Architecture".
#include "py/runtime.h"
#include "port/mce.h"
#include "port/trap.h"
#include "port/x86.h"

#define MCG_STATUS_RIPV (1ull << 0)
#define BANK(n)         (IA32_MC0_CTL + MC_BANK * (n))
#define ACTION_REQUIRED (MC_STATUS_UC | MC_STATUS_S | MC_STATUS_AR)
#define KEPT            (8)

typedef struct {
    uint64_t bank, status, address, misc;
} record_t;

static struct {
    unsigned banks; // enabled by vmm/machine_check.py
    unsigned kept; // entries of record[] in use
    uint64_t lost; // machine checks for which record[] had no room
    record_t record[KEPT];
} mce;

static void put_hex(char *at, uint64_t value) {
    for (int i = 15; i >= 0; i--, value >>= 4) {
        at[i] = "0123456789abcdef"[value & 15];
    }
}

// "bank 00 status ... address ...", for panic().
static const char *fatal(const record_t *r) {
    static char text[] = "#MC bank 00 status 0000000000000000 address 0000000000000000";
    text[9] = '0' + r->bank / 10 % 10;
    text[10] = '0' + r->bank % 10;
    put_hex(text + 19, r->status);
    put_hex(text + 44, r->address);
    return text;
}

// Whether the CPU's context is corrupt, or the interrupted code needs the bad data.
static bool is_fatal(uint64_t status) {
    return (status & MC_STATUS_PCC) || (status & ACTION_REQUIRED) == ACTION_REQUIRED;
}

bool mce_survived(const char **reason) {
    *reason = "#MC";
    if (mce.banks == 0) {
        return false; // no banks to read
    }
    bool goes_on = rdmsr(IA32_MCG_STATUS) & MCG_STATUS_RIPV;
    for (unsigned i = 0; i < mce.banks; i++) {
        record_t r = {i, rdmsr(BANK(i) + MC_STATUS), 0, 0};
        if (!(r.status & MC_STATUS_VAL)) {
            continue;
        }
        r.address = r.status & MC_STATUS_ADDRV ? rdmsr(BANK(i) + MC_ADDR) : 0;
        r.misc = r.status & MC_STATUS_MISCV ? rdmsr(BANK(i) + MC_MISC) : 0;
        if (is_fatal(r.status) || !goes_on) {
            *reason = fatal(&r);
            return false;
        }
        if (mce.kept < KEPT) {
            mce.record[mce.kept++] = r;
        } else {
            mce.lost++;
        }
        wrmsr(BANK(i) + MC_STATUS, 0);
    }
    if (goes_on) {
        wrmsr(IA32_MCG_STATUS, 0); // or the next one would shut the CPU down
    }
    return goes_on;
}

// machine_check_banks(n): a #MC reads the first n banks.
static mp_obj_t mod_banks(mp_obj_t count) {
    mce.banks = mp_obj_get_int(count);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_machine_check_banks_obj, mod_banks);

// machine_checks() -> the machine checks since the last call as [(bank, status, address, misc), ...], with None at the
// end where some were lost; None where there was none.
static mp_obj_t mod_machine_checks(void) {
    trap_alarm = false;
    if (mce.kept == 0) {
        return mp_const_none;
    }
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (unsigned i = 0; i < mce.kept; i++) {
        const record_t *r = &mce.record[i];
        mp_obj_t items[] = {mp_obj_new_int_from_uint(r->bank), mp_obj_new_int_from_uint(r->status),
            mp_obj_new_int_from_uint(r->address), mp_obj_new_int_from_uint(r->misc)};
        mp_obj_list_append(list, mp_obj_new_tuple(MP_ARRAY_SIZE(items), items));
    }
    if (mce.lost != 0) {
        mp_obj_list_append(list, mp_const_none);
    }
    mce.kept = mce.lost = 0;
    return list;
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_machine_checks_obj, mod_machine_checks);
