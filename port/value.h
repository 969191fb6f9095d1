// vmx.Value: the answer of a function, in a form that viper reads.
#ifndef PCANEL_VALUE_H
#define PCANEL_VALUE_H

#include "py/obj.h"

extern const mp_obj_type_t value_type;
MP_DECLARE_CONST_FUN_OBJ_1(value_numbers_obj);
#endif
