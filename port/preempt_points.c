// The points at which bytecode, the compiler and MicroPython's built-in functions are preempted, beside the branches of
// bytecode (port/preempt.h): so that no stretch between two of them is long.
//
// At each of them nothing that others use is half changed. The linker redirects the calls here (--wrap); of mp_binary_op() those
// of py/objlist.c only, of mp_store_name() those of py/vm.c (Makefile). Names and the hashes of long strings have theirs in
// qstrs.c.
#include <stdarg.h>
#include <string.h>
#include "py/compile.h"
#include "py/emit.h"
#include "py/lexer.h"
#include "py/mphal.h"
#include "py/mpprint.h"
#include "py/objtype.h"
#include "py/parse.h"
#include "py/runtime.h"
#include "py/scope.h"
#include "port/preempt.h"

#define PIECE (512) // bytes of a text between two points

void __real_mp_lexer_to_next(mp_lexer_t *lex);
void __wrap_mp_lexer_to_next(mp_lexer_t *lex);
void __wrap_mp_lexer_to_next(mp_lexer_t *lex) {
    preempt_look();
    __real_mp_lexer_to_next(lex);
}

mp_parse_tree_t __real_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind);
mp_parse_tree_t __wrap_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind);
mp_parse_tree_t __wrap_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind) {
    preempt_look();
    return __real_mp_parse(lex, kind);
}

// Between parsing and compiling, and before the compiler's passes begin.
mp_obj_t __real_mp_compile(mp_parse_tree_t *tree, qstr source, bool is_repl);
mp_obj_t __wrap_mp_compile(mp_parse_tree_t *tree, qstr source, bool is_repl);
mp_obj_t __wrap_mp_compile(mp_parse_tree_t *tree, qstr source, bool is_repl) {
    preempt_look();
    return __real_mp_compile(tree, source, is_repl);
}

emit_t *__real_emit_bc_new(mp_emit_common_t *emit);
emit_t *__wrap_emit_bc_new(mp_emit_common_t *emit);
emit_t *__wrap_emit_bc_new(mp_emit_common_t *emit) {
    preempt_look();
    return __real_emit_bc_new(emit);
}

id_info_t *__real_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind);
id_info_t *__wrap_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind);
id_info_t *__wrap_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind) {
    preempt_look();
    return __real_scope_find_or_add_id(scope, name, kind);
}

qstr_short_t __real_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name);
qstr_short_t __wrap_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name);
qstr_short_t __wrap_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name) {
    preempt_look();
    return __real_mp_emit_common_use_qstr(emit, name);
}

void __real_scope_free(scope_t *scope);
void __wrap_scope_free(scope_t *scope);
void __wrap_scope_free(scope_t *scope) {
    preempt_look();
    __real_scope_free(scope);
}

int __wrap_mp_printf(const mp_print_t *print, const char *fmt, ...);
int __wrap_mp_printf(const mp_print_t *print, const char *fmt, ...) {
    preempt_look();
    va_list args;
    va_start(args, fmt);
    int printed = mp_vprintf(print, fmt, args);
    va_end(args);
    return printed;
}

mp_obj_t preempt_binary_op(mp_binary_op_t op, mp_obj_t left, mp_obj_t right);
mp_obj_t preempt_binary_op(mp_binary_op_t op, mp_obj_t left, mp_obj_t right) {
    preempt_look();
    return mp_binary_op(op, left, right);
}

mp_obj_t preempt_iternext(mp_obj_t iterator);
mp_obj_t preempt_iternext(mp_obj_t iterator) {
    preempt_look();
    return mp_iternext(iterator);
}

// A module's own code, which may go on for long without a branch.
void preempt_store_name(qstr name, mp_obj_t object);
void preempt_store_name(qstr name, mp_obj_t object) {
    preempt_look();
    mp_store_name(name, object);
}

// An import: among some hundred frozen modules the right one is found by its name.
size_t preempt_strlen(const char *name);
size_t preempt_strlen(const char *name) {
    preempt_look();
    return strlen(name);
}

// The % of strings, between two of what it converts; floating point is not for this file (float.mk).
int preempt_print_strn(
    const mp_print_t *print, const char *str, size_t len, int flags, char fill, int width);
int preempt_print_strn(
    const mp_print_t *print, const char *str, size_t len, int flags, char fill, int width) {
    preempt_look();
    return mp_print_strn(print, str, len, flags, fill, width);
}

int preempt_print_mp_int(const mp_print_t *print, mp_obj_t value, int base, int base_char,
    int flags, char fill, int width, int precision);
int preempt_print_mp_int(const mp_print_t *print, mp_obj_t value, int base, int base_char,
    int flags, char fill, int width, int precision) {
    preempt_look();
    return mp_print_mp_int(print, value, base, base_char, flags, fill, width, precision);
}

// A constructor, which may set dozens of attributes without a branch: each new one can move all of the object's others.
// Attributes that are there already change without an interruption.
static bool adds_attribute(mp_obj_t object, qstr name) {
    if (!mp_obj_is_instance_type(mp_obj_get_type(object))) {
        return false;
    }
    mp_obj_instance_t *instance = MP_OBJ_TO_PTR(object);
    return mp_map_lookup(&instance->members, MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP) == NULL;
}

void preempt_store_attr(mp_obj_t object, qstr name, mp_obj_t value);
void preempt_store_attr(mp_obj_t object, qstr name, mp_obj_t value) {
    if (preempt_due() && adds_attribute(object, name)) {
        preempt();
    }
    mp_store_attr(object, name, value);
}

// Long texts, in pieces: whether bytes are UTF-8, how many characters they are, and what is printed, of which each \n
// becomes \r\n.

bool __real_utf8_check(const byte *text, size_t len);
bool __wrap_utf8_check(const byte *text, size_t len);
bool __wrap_utf8_check(const byte *text, size_t len) {
    while (len > PIECE) {
        size_t piece = PIECE;
        while (piece > 1 && UTF8_IS_CONT(text[piece])) { // a character is not cut
            piece--;
        }
        if (!__real_utf8_check(text, piece)) {
            return false;
        }
        preempt_look();
        text += piece;
        len -= piece;
    }
    return __real_utf8_check(text, len);
}

size_t __real_utf8_charlen(const byte *text, size_t len);
size_t __wrap_utf8_charlen(const byte *text, size_t len);
size_t __wrap_utf8_charlen(const byte *text, size_t len) {
    size_t count = 0;
    for (; len > PIECE; text += PIECE, len -= PIECE) {
        count += __real_utf8_charlen(text, PIECE);
        preempt_look();
    }
    return count + __real_utf8_charlen(text, len);
}

void __real_mp_hal_stdout_tx_strn_cooked(const char *text, size_t len);
void __wrap_mp_hal_stdout_tx_strn_cooked(const char *text, size_t len);
void __wrap_mp_hal_stdout_tx_strn_cooked(const char *text, size_t len) {
    for (; len > PIECE; text += PIECE, len -= PIECE) {
        __real_mp_hal_stdout_tx_strn_cooked(text, PIECE);
    }
    __real_mp_hal_stdout_tx_strn_cooked(text, len);
}

// The * of strings, lists and tuples: MicroPython copies item by item, 25 ticks each.
void __wrap_mp_seq_multiply(
    const void *items, size_t item_size, size_t len, size_t times, void *out);
void __wrap_mp_seq_multiply(
    const void *items, size_t item_size, size_t len, size_t times, void *out) {
    size_t done = item_size * len;
    size_t all = done * times;
    if (all == 0) {
        return;
    }
    memcpy(out, items, done);
    while (done < all) {
        size_t more = done < all - done ? done : all - done;
        memcpy((byte *)out + done, out, more);
        done += more;
    }
}
