// Keys of dictionaries and sets that are small integers: py/map.c compares two of them without checking their types.
// In a dictionary with integers as keys, each slot that a search passes costs 8 ticks so, and else 70.
#include "py/obj.h"

bool map_equal(mp_obj_t one, mp_obj_t other);
bool map_equal(mp_obj_t one, mp_obj_t other) {
    if (mp_obj_is_small_int(one) && mp_obj_is_small_int(other)) {
        return one == other;
    }
    return mp_obj_equal(one, other);
}
