// Name tables with free entries: the prompt's globals, and cpu.room().
//
// MicroPython's table grows only when it is full, and a failed search in a nearly full one visits most of it. Looking
// up a builtin first fails among the globals, looking up a method among the attributes of its object. The prompt starts
// with 92 names: in a table of 97 entries, a builtin in a policy took 1,200 ticks more.
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

// room(object, entries): gives an object of a Python class a table of at least so many entries for its attributes.
static mp_obj_t mod_room(mp_obj_t object, mp_obj_t entries) {
    if (!mp_obj_is_instance_type(mp_obj_get_type(object))) {
        mp_raise_TypeError(MP_ERROR_TEXT("object of a class in Python expected"));
    }
    make_room(&((mp_obj_instance_t *)MP_OBJ_TO_PTR(object))->members, mp_obj_get_int(entries));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(cpu_room_obj, mod_room);
