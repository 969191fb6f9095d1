// The mailbox: the host finds it by its magic, writes a request and rings; vmm/debug/mailbox.py answers between the
// guests' turns. vmm/debug/mailbox_layout.py declares its layout.
#include "py/runtime.h"
#include "port/mailbox.h"
#include "shared_constants.h"

#define SIZE (128 << 10)

static union {
    volatile uint32_t words[SIZE / 4];
    uint8_t bytes[SIZE];
} mailbox __attribute__((aligned(4096)));

// What the host searches the image for, at multiples of 16: "Pcanel/Mailbox1", and the mailbox's address.
__attribute__((aligned(16))) static volatile struct {
    uint32_t magic[4];
    void *hpa;
} place = {{0x6e616350, 0x4d2f6c65, 0x626c6961, 0x0031786f}, &mailbox};

bool mailbox_bell(uint8_t c) {
    if (c != MAILBOX_BELL || mailbox.words[MAILBOX_BELLS] == mailbox.words[MAILBOX_RUNG]) {
        return false;
    }
    mailbox.words[MAILBOX_BELLS]++;
    return true;
}

bool mailbox_rung(void) {
    return mailbox.words[MAILBOX_RUNG] != mailbox.words[MAILBOX_SEEN];
}

void mailbox_serve(void) {
    nlr_buf_t nlr;
    mailbox.words[MAILBOX_SEEN] = mailbox.words[MAILBOX_RUNG];
    if (nlr_push(&nlr) == 0) {
        mp_obj_t module = mp_import_name(
            qstr_from_str("vmm.debug.mailbox"), mp_const_true, MP_OBJ_NEW_SMALL_INT(0));
        mp_call_function_0(mp_load_attr(module, qstr_from_str("serve")));
        nlr_pop();
    } else {
        mp_printf(MICROPY_ERROR_PRINTER, "\nA request of the host failed:\n");
        mp_obj_print_exception(MICROPY_ERROR_PRINTER, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

// mailbox() -> its bytes, shared with the host.
static mp_obj_t mod_mailbox(void) {
    return mp_obj_new_bytearray_by_ref(SIZE, place.hpa);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_mailbox_obj, mod_mailbox);
