// vmx.Value(value), and vmx.numbers(): a box whose numbers viper reads as words, without unpacking the object inside.
#include "py/runtime.h"
#include "port/value.h"

#define WORDS (4)

typedef struct {
    mp_obj_base_t base;
    mp_obj_t value;
    uint32_t
        count; // of numbers in words[]: 1 of 64 bits, or 2 to 4 of 32 bits; 0: the value is neither
    uint32_t reserved;
    uint32_t words[WORDS];
} value_t;

// Stores the numbers in words[], without the bits that do not fit. Returns their count, as value_t has it.
static uint32_t unpack(mp_obj_t value, uint32_t *words) {
    if (mp_obj_is_int(value)) {
        uint64_t number = mp_obj_get_int_truncated(value);
        words[0] = number;
        words[1] = number >> 32;
        return 1;
    }
    if (!mp_obj_is_type(value, &mp_type_tuple) && !mp_obj_is_type(value, &mp_type_list)) {
        return 0;
    }
    size_t count;
    mp_obj_t *items;
    mp_obj_get_array(value, &count, &items);
    if (count < 2 || count > WORDS) {
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (!mp_obj_is_int(items[i])) {
            return 0;
        }
        words[i] = mp_obj_get_int_truncated(items[i]);
    }
    return count;
}

static mp_obj_t make_new(
    const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, 1, false);
    value_t *self = mp_obj_malloc(value_t, type);
    self->value = args[0];
    self->count = unpack(args[0], self->words);
    return MP_OBJ_FROM_PTR(self);
}

static void attr(mp_obj_t self_in, qstr name, mp_obj_t *dest) {
    const value_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] == MP_OBJ_NULL && name == MP_QSTR_value) {
        dest[0] = self->value;
    }
}

static void print(const mp_print_t *out, mp_obj_t self_in, mp_print_kind_t kind) {
    const value_t *self = MP_OBJ_TO_PTR(self_in);
    (void)kind;
    mp_print_str(out, "Value(");
    mp_obj_print_helper(out, self->value, PRINT_REPR);
    mp_print_str(out, ")");
}

MP_DEFINE_CONST_OBJ_TYPE(
    value_type, MP_QSTR_Value, MP_TYPE_FLAG_NONE, make_new, make_new, attr, attr, print, print);

// numbers(object) -> address of a Value's 32-bit words: the count, 0, and the numbers (value_t); -1 for None, 0 for any
// other object.
static mp_obj_t numbers(mp_obj_t object) {
    if (object == mp_const_none) {
        return MP_OBJ_NEW_SMALL_INT(-1);
    }
    if (!mp_obj_is_exact_type(object, &value_type)) {
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    const value_t *self = MP_OBJ_TO_PTR(object);
    return MP_OBJ_NEW_SMALL_INT((mp_int_t)(uintptr_t)&self->count);
}
MP_DEFINE_CONST_FUN_OBJ_1(value_numbers_obj, numbers);
