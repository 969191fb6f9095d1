// The multiboot module: memory map, boot modules and command line, and the memory
// that the port itself occupies. Addresses are host-physical, sizes bytes.
#include "py/runtime.h"
#include "port/memory.h"
#include "port/multiboot.h"

extern char image_start[];

static mp_obj_t pair(uint64_t hpa, uint64_t size) {
    mp_obj_t items[2] = {mp_obj_new_int_from_uint(hpa), mp_obj_new_int_from_uint(size)};
    return mp_obj_new_tuple(2, items);
}

static mp_obj_t mod_memory(void) {
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (unsigned i = 0; i < multiboot.ranges_count; i++) {
        const multiboot_range_t *range = &multiboot.ranges[i];
        mp_obj_t items[3] = {mp_obj_new_int_from_uint(range->base),
            mp_obj_new_int_from_uint(range->length), mp_obj_new_int(range->type)};
        mp_obj_list_append(list, mp_obj_new_tuple(3, items));
    }
    return list;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_memory_obj, mod_memory);

static mp_obj_t mod_modules(void) {
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (unsigned i = 0; i < multiboot.modules_count; i++) {
        const multiboot_module_t *module = &multiboot.modules[i];
        mp_obj_t items[3] = {mp_obj_new_str_from_cstr(module->string),
            mp_obj_new_int_from_uint(module->hpa), mp_obj_new_int_from_uint(module->size)};
        mp_obj_list_append(list, mp_obj_new_tuple(3, items));
    }
    return list;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_modules_obj, mod_modules);

static mp_obj_t mod_cmdline(void) {
    return mp_obj_new_str_from_cstr(multiboot.cmdline);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_cmdline_obj, mod_cmdline);

static mp_obj_t mod_loader(void) {
    return mp_obj_new_str_from_cstr(multiboot.loader);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_loader_obj, mod_loader);

static mp_obj_t mod_image(void) {
    return pair((uintptr_t)image_start, memory_image_size());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_image_obj, mod_image);

// The block that the port reserved at boot: Python's heap, the executable region,
// the RAM file system, page tables.
static mp_obj_t mod_heap(void) {
    return pair(memory.all.hpa, memory.all.size);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_heap_obj, mod_heap);

// Host-physical address of a copy of ACPI's RSDP, 0 if the loader gave none
// (BIOS: search the ROM area for it).
static mp_obj_t mod_rsdp(void) {
    return mp_obj_new_int_from_uint(multiboot.rsdp);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_rsdp_obj, mod_rsdp);

static const mp_rom_map_elem_t multiboot_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_multiboot)},
    {MP_ROM_QSTR(MP_QSTR_memory), MP_ROM_PTR(&mod_memory_obj)},
    {MP_ROM_QSTR(MP_QSTR_modules), MP_ROM_PTR(&mod_modules_obj)},
    {MP_ROM_QSTR(MP_QSTR_cmdline), MP_ROM_PTR(&mod_cmdline_obj)},
    {MP_ROM_QSTR(MP_QSTR_loader), MP_ROM_PTR(&mod_loader_obj)},
    {MP_ROM_QSTR(MP_QSTR_image), MP_ROM_PTR(&mod_image_obj)},
    {MP_ROM_QSTR(MP_QSTR_heap), MP_ROM_PTR(&mod_heap_obj)},
    {MP_ROM_QSTR(MP_QSTR_rsdp), MP_ROM_PTR(&mod_rsdp_obj)},
};
static MP_DEFINE_CONST_DICT(multiboot_globals, multiboot_globals_table);

const mp_obj_module_t mp_module_multiboot = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&multiboot_globals,
};

MP_REGISTER_MODULE(MP_QSTR_multiboot, mp_module_multiboot);
