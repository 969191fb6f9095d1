// Detects the monitor's writes to guests' pages that it has a copy of: cpu.protect(), cpu.unprotect(), cpu.written(),
// cpu.put(), cpu.wrote().
//
// Devices of guests write by instructions of the monitor. As long as a page is unchanged since it was copied, the
// host's page tables do not allow writes. The first write is a page fault, which makes the page writable and makes the
// guest's next entry go through VCPU_SLOT_WRITTEN. So no device handles copies, and without copies nothing is checked.
// DMA of the host's devices causes no page fault: their drivers call wrote().
//
// A large page with a protected page in it is mapped by a table of 4 KiB pages meanwhile. Source: SDM Vol. 3A,
// "Page-Fault Exceptions", "Recommended Invalidation".
#include <string.h>
#include "py/runtime.h"
#include "port/paging.h"
#include "port/vcpu.h"
#include "port/written.h"
#include "port/x86.h"

#define SPLIT (1ull << 9) // ignored by the CPU: a directory's entry points to a table_t

#define CAUSE       (PTE_P | PF_WRITE | PF_USER | PF_RSVD | PF_FETCH) // of an error code
#define BY_NO_RIGHT (PTE_P | PF_WRITE) // a write to a page that is present

typedef struct table {
    uint64_t entry[512];
    vcpu_frame_t
        *frame[512]; // of a vCPU of the guest that has the page; NULL: the page is not protected
    uint64_t before; // the directory's entry that this table replaces
    uint64_t *at; // where the entry is
    uint64_t count; // protected pages
    struct table *next;
} table_t;

#define TABLE_SIZE (3 * PAGE_4K)
_Static_assert(sizeof(table_t) <= TABLE_SIZE, "what vmm/debug/face.py takes");

static table_t *tables;

static table_t *table_of(uint64_t hpa) {
    uint64_t *at = paging_directory(hpa);
    return at != NULL && (*at & SPLIT) ? (table_t *)(*at & PTE_ADDRESS) : NULL;
}

static unsigned index_of(uint64_t hpa) {
    return hpa / PAGE_4K % 512;
}

static bool is_protected(const table_t *table, uint64_t hpa) {
    return table != NULL && table->frame[index_of(hpa)] != NULL;
}

static void invalidate(uint64_t hpa) {
    __asm volatile("invlpg (%0)" : : "r"(hpa) : "memory");
}

static void forbid(table_t *table, uint64_t hpa) {
    table->entry[index_of(hpa)] &= ~PTE_RW;
    invalidate(hpa);
}

static void allow(table_t *table, uint64_t hpa) {
    table->entry[index_of(hpa)] |= PTE_RW;
    invalidate(hpa);
}

static void split(table_t *table, uint64_t *at, uint64_t hpa) {
    uint64_t entry = *at;
    if (entry & PTE_PS) {
        for (unsigned i = 0; i < 512; i++) {
            table->entry[i] = (entry & ~PTE_PS) + i * PAGE_4K;
        }
    } else {
        memcpy(table->entry, (const void *)(entry & PTE_ADDRESS), sizeof(table->entry));
    }
    table->before = entry;
    table->at = at;
    table->count = 0;
    table->next = tables;
    tables = table;
    *at = (uintptr_t)table | SPLIT | PTE_P | PTE_RW;
    invalidate(hpa);
}

// Restores the large page. The TLB may hold an entry for each page of the table: all are invalidated.
static void join(table_t *table) {
    table_t **link = &tables;
    while (*link != table) {
        link = &(*link)->next;
    }
    *link = table->next;
    *table->at = table->before;
    write_cr3(read_cr3());
}

void written_init(void) {
    while (tables != NULL) {
        join(tables);
    }
}

// Makes the page writable; the guest's vCPUs are not entered before Python has handled the write.
static void note(table_t *table, uint64_t hpa) {
    allow(table, hpa);
    vcpu_frame_t *first = table->frame[index_of(hpa)], *frame = first;
    do {
        frame->written = 1;
        frame = (vcpu_frame_t *)frame->sibling;
    } while (frame != NULL && frame != first);
}

bool written_fault(uint64_t address, uint64_t error_code) {
    if ((error_code & CAUSE) != BY_NO_RIGHT) {
        return false;
    }
    table_t *table = table_of(address);
    if (!is_protected(table, address)) {
        return false;
    }
    note(table, address);
    return true;
}

void written_tell(uint64_t hpa, uint64_t size) {
    if (tables == NULL || size == 0) {
        return;
    }
    for (uint64_t at = hpa & ~(PAGE_4K - 1); at < hpa + size; at += PAGE_4K) {
        table_t *table = table_of(at);
        if (is_protected(table, at) && !(table->entry[index_of(at)] & PTE_RW)) {
            note(table, at);
        }
    }
}

static table_t *need(uint64_t hpa) {
    table_t *table = table_of(hpa);
    if (!is_protected(table, hpa)) {
        mp_raise_ValueError(MP_ERROR_TEXT("page is not protected"));
    }
    return table;
}

// protect(hpa, frame, memory) -> bool: from now on a write to the page is reported to the guest with this vCPU frame.
// memory: hpa of 12 KiB for a table, in use until unprotect() returns them, or 0. False: a table is needed, and memory
// is 0. ValueError for a page that is not mapped, or is protected already.
static mp_obj_t mod_protect(mp_obj_t hpa_in, mp_obj_t frame, mp_obj_t memory_in) {
    uint64_t hpa = mp_obj_get_int_truncated(hpa_in);
    uint64_t memory = mp_obj_get_int_truncated(memory_in);
    uint64_t *at = paging_directory(hpa);
    if (at == NULL || is_protected(table_of(hpa), hpa)) {
        mp_raise_ValueError(MP_ERROR_TEXT("page cannot be protected"));
    }
    if (!(*at & SPLIT)) {
        if (memory == 0) {
            return mp_const_false;
        }
        memset((void *)memory, 0, TABLE_SIZE);
        split((table_t *)memory, at, hpa);
    }
    table_t *table = table_of(hpa);
    table->frame[index_of(hpa)] = (vcpu_frame_t *)mp_obj_get_int_truncated(frame);
    table->count++;
    forbid(table, hpa);
    return mp_const_true;
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_protect_obj, mod_protect);

// unprotect(hpa) -> hpa of a table of protect() that is not in use any more, or 0.
static mp_obj_t mod_unprotect(mp_obj_t hpa_in) {
    uint64_t hpa = mp_obj_get_int_truncated(hpa_in);
    table_t *table = need(hpa);
    allow(table, hpa);
    table->frame[index_of(hpa)] = NULL;
    if (--table->count != 0) {
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    join(table);
    return mp_obj_new_int_from_uint((uintptr_t)table);
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_unprotect_obj, mod_unprotect);

// written(hpa) -> whether the page has been written to since the last call. It is protected again.
static mp_obj_t mod_written(mp_obj_t hpa_in) {
    uint64_t hpa = mp_obj_get_int_truncated(hpa_in);
    table_t *table = need(hpa);
    if (!(table->entry[index_of(hpa)] & PTE_RW)) {
        return mp_const_false;
    }
    forbid(table, hpa);
    return mp_const_true;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_written_obj, mod_written);

// put(hpa, size, value): writes 1, 2, 4 or 8 bytes within a protected page without a report: the caller changes the
// copy, too.
static mp_obj_t mod_put(mp_obj_t hpa_in, mp_obj_t size, mp_obj_t value_in) {
    uint64_t hpa = mp_obj_get_int_truncated(hpa_in);
    uint64_t value = mp_obj_get_int_truncated(value_in);
    table_t *table = need(hpa);
    bool told = table->entry[index_of(hpa)] & PTE_RW;
    allow(table, hpa);
    memcpy((void *)hpa, &value, mp_obj_get_int(size));
    if (!told) {
        forbid(table, hpa);
    }
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_put_obj, mod_put);

// wrote(hpa, size): a device of the host has written these bytes by DMA.
static mp_obj_t mod_wrote(mp_obj_t hpa, mp_obj_t size) {
    written_tell(mp_obj_get_int_truncated(hpa), mp_obj_get_int(size));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(cpu_wrote_obj, mod_wrote);
