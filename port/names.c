// Tables of names with room: the prompt's globals, and cpu.room().
//
// A table grows when it is full, and until then each search in vain goes through most of it: that for a builtin, which
// is no global, and that for a method, which is no attribute of its object. The prompt has 92 names before its user has
// any: in the 97 entries that would come of them, a builtin in a policy took 1,200 ticks more.
#include "py/obj.h"
#include "py/objtype.h"
#include "py/runtime.h"
#include "port/names.h"

#define PROMPT_ENTRIES (223) // primes, as py/map.c has them

static void make_room(mp_map_t *map, size_t entries) {
    if (map->alloc >= entries) {
        return;
    }
    mp_map_t roomy;
    mp_map_init(&roomy, entries);
    for (size_t i = 0; i < map->alloc; i++) {
        if (mp_map_slot_is_filled(map, i)) {
            mp_map_lookup(&roomy, map->table[i].key, MP_MAP_LOOKUP_ADD_IF_NOT_FOUND)->value =
                map->table[i].value;
        }
    }
    mp_map_deinit(map);
    *map = roomy;
}

void names_init(void) {
    make_room(&MP_STATE_VM(dict_main).map, PROMPT_ENTRIES);
}

// room(object, entries): the object, of a class in Python, has a table of at least so many entries for its attributes.
static mp_obj_t mod_room(mp_obj_t object, mp_obj_t entries) {
    if (!mp_obj_is_instance_type(mp_obj_get_type(object))) {
        mp_raise_TypeError(MP_ERROR_TEXT("object of a class in Python expected"));
    }
    make_room(&((mp_obj_instance_t *)MP_OBJ_TO_PTR(object))->members, mp_obj_get_int(entries));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(cpu_room_obj, mod_room);
