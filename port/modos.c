// Included by extmod/modos.c: random bytes.
#include "port/random.h"

static mp_obj_t mp_os_urandom(mp_obj_t num) {
    vstr_t vstr;
    vstr_init_len(&vstr, mp_obj_get_int(num));
    for (size_t i = 0; i < vstr.len; i++) {
        vstr.buf[i] = pcanel_random() >> 8;
    }
    return mp_obj_new_bytes_from_vstr(&vstr);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mp_os_urandom_obj, mp_os_urandom);
