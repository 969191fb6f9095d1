// An index of all names (qstrs) by their hashes.
//
// MicroPython searches each of its pools for a name: the two of the image by bisection, comparing characters, the later
// ones from end to end. With 10,000 names in the image this takes 4,000 to 6,000 ticks, and each new string of up to
// 255 characters is looked up, since it may be a name. The index takes some 150 ticks. A look-up is also a preemption
// point (port/preempt.h).
//
// The linker redirects the calls here (--wrap).
#include <string.h>
#include "py/mpstate.h"
#include "py/qstr.h"
#include "port/qstrs.h"
#include "port/preempt.h"

#define LONGEST    ((1u << 8 * MICROPY_QSTR_BYTES_IN_LEN) - 1) // bytes of a name
#define SLOTS      (32768u)
#define MOST       (SLOTS / 4 * 3) // names; later ones are found in the pools only
#define HASH_START (5381)
#define HASH_MULT  (33)
#define HASH_PIECE (512) // bytes between two readings of the clock

static uint16_t slots[SLOTS]; // hash table with linear probing: a qstr, or 0
static size_t indexed; // qstrs below this are in the table

static void add(const qstr_pool_t *pool, size_t at) {
    size_t slot = pool->hashes[at] % SLOTS;
    while (slots[slot] != 0) {
        slot = (slot + 1) % SLOTS;
    }
    slots[slot] = pool->total_prev_len + at;
}

// Names are never removed; new ones are the last.
static void add_new(void) {
    const qstr_pool_t *pool = MP_STATE_VM(last_pool);
    size_t all = pool->total_prev_len + pool->len;
    size_t end = all < MOST ? all : MOST;
    for (; pool != NULL && pool->total_prev_len + pool->len > indexed; pool = pool->prev) {
        size_t at = indexed > pool->total_prev_len ? indexed - pool->total_prev_len : 0;
        for (; at < pool->len && pool->total_prev_len + at < end; at++) {
            add(pool, at);
        }
    }
    indexed = end;
}

void qstrs_begin(void) {
    memset(slots, 0, sizeof(slots));
    indexed = 1; // MP_QSTRnull is no name
    add_new();
}

qstr __real_qstr_find_strn(const char *str, size_t len);
qstr __wrap_qstr_find_strn(const char *str, size_t len);
qstr __wrap_qstr_find_strn(const char *str, size_t len) {
    if (len > LONGEST) {
        return MP_QSTRnull;
    }
    preempt_look();
    add_new();
    size_t hash = qstr_compute_hash((const byte *)str, len);
    for (size_t slot = hash % SLOTS; slots[slot] != 0; slot = (slot + 1) % SLOTS) {
        size_t length;
        qstr name = slots[slot];
        if (qstr_hash(name) == hash) {
            const byte *data = qstr_data(name, &length);
            if (length == len && memcmp(data, str, len) == 0) {
                return name;
            }
        }
    }
    return indexed < MOST ? MP_QSTRnull : __real_qstr_find_strn(str, len);
}

qstr __real_qstr_from_strn(const char *str, size_t len);
qstr __wrap_qstr_from_strn(const char *str, size_t len);
qstr __wrap_qstr_from_strn(const char *str, size_t len) {
    qstr name = __wrap_qstr_find_strn(str, len);
    return name != MP_QSTRnull ? name : __real_qstr_from_strn(str, len);
}

qstr __wrap_qstr_from_str(const char *str);
qstr __wrap_qstr_from_str(const char *str) {
    return __wrap_qstr_from_strn(str, strlen(str));
}

// The hash of a string longer than any name, with preemption points: it takes five instructions a character.
size_t __real_qstr_compute_hash(const byte *data, size_t len);
size_t __wrap_qstr_compute_hash(const byte *data, size_t len);
size_t __wrap_qstr_compute_hash(const byte *data, size_t len) {
    if (len <= LONGEST) {
        return __real_qstr_compute_hash(data, len);
    }
    size_t hash = HASH_START; // as py/qstr.c: frozen strings contain their hashes
    for (size_t i = 0; i < len; i++) {
        hash = hash * HASH_MULT ^ data[i];
        if (i % HASH_PIECE == 0) {
            preempt_look();
        }
    }
    hash &= (1u << 8 * MICROPY_QSTR_BYTES_IN_HASH) - 1;
    return hash != 0 ? hash : 1;
}
