// The VMX instructions and the few privileged ones that the exit loop needs, as inline
// functions. RFLAGS after a VMX instruction: CF is VMfailInvalid, ZF is VMfailValid.
#ifndef PCANEL_VMXOPS_H
#define PCANEL_VMXOPS_H

#include <stdint.h>
#include <stdbool.h>

#include "shared_constants.h" // VMCS encodings (vmm/vtx/vmcs.py)

typedef enum { VMX_OK = 0, VMX_FAIL_INVALID = 1, VMX_FAIL_VALID = 2 } vmx_result_t;

#define VMX_FLAGS(c, z) ((c) ? VMX_FAIL_INVALID : (z) ? VMX_FAIL_VALID : VMX_OK)

// modvmx.c
void vmx_raise(const char *op, vmx_result_t result) __attribute__((noreturn));
void vmx_put_failed(void) __attribute__((noreturn, cold));
void vmx_check(const char *op, vmx_result_t result);
void vmx_need_root(const char *op);
void vmx_shutdown(void);

static inline vmx_result_t vmx_vmread(uint64_t field, uint64_t *value) {
    bool c, z;
    __asm volatile("vmread %3, %0" : "=rm"(*value), "=@ccc"(c), "=@ccz"(z) : "r"(field));
    return VMX_FLAGS(c, z);
}

static inline vmx_result_t vmx_vmwrite(uint64_t field, uint64_t value) {
    bool c, z;
    __asm volatile("vmwrite %2, %3" : "=@ccc"(c), "=@ccz"(z) : "rm"(value), "r"(field));
    return VMX_FLAGS(c, z);
}

#define VMX_POINTER_OP(name, insn)                                                                 \
    static inline vmx_result_t name(uint64_t hpa) {                                                \
        bool c, z;                                                                                 \
        __asm volatile(insn " %2" : "=@ccc"(c), "=@ccz"(z) : "m"(hpa) : "memory");                 \
        return VMX_FLAGS(c, z);                                                                    \
    }
VMX_POINTER_OP(vmx_vmxon, "vmxon")
VMX_POINTER_OP(vmx_vmclear, "vmclear")
VMX_POINTER_OP(vmx_vmptrld, "vmptrld")

static inline void vmx_vmxoff(void) {
    __asm volatile("vmxoff" ::: "cc", "memory");
}

#define VMX_INVALIDATE_OP(name, insn)                                                              \
    static inline vmx_result_t name(uint64_t type, const uint64_t descriptor[2]) {                 \
        bool c, z;                                                                                 \
        __asm volatile(insn " (%3), %2"                                                            \
                       : "=@ccc"(c), "=@ccz"(z)                                                    \
                       : "r"(type), "r"(descriptor), "m"(*(const uint64_t(*)[2])descriptor)        \
                       : "memory");                                                                \
        return VMX_FLAGS(c, z);                                                                    \
    }
VMX_INVALIDATE_OP(vmx_do_invept, "invept")
VMX_INVALIDATE_OP(vmx_do_invvpid, "invvpid")

// A read that cannot fail: the field exists on every CPU that has VMX and EPT, and a VMCS is current.
static inline uint64_t vmx_get(uint64_t field) {
    uint64_t value;
    __asm volatile("vmread %1, %0" : "=rm"(value) : "r"(field) : "cc");
    return value;
}

// The same, to memory: one instruction fewer.
static inline void vmx_save(uint64_t field, uint64_t *value) {
    __asm volatile("vmread %1, %0" : "=m"(*value) : "r"(field) : "cc");
}

// VMWRITE; raises VmxError where it fails. The check is one instruction.
static inline void vmx_put(uint64_t field, uint64_t value) {
    __asm goto("vmwrite %0, %1\n\tjbe %l2" ::"rm"(value), "r"(field) : "cc" : failed);
    return;
failed:
    vmx_put_failed();
}

static inline uint64_t op_rdtsc(void) {
    uint64_t tsc; // RDTSC clears the upper halves, which the compiler cannot know
    __asm volatile("rdtsc\n\tshl $32, %%rdx\n\tor %%rdx, %0" : "=a"(tsc)::"rdx", "cc");
    return tsc;
}

static inline uint64_t op_rdmsr(uint32_t index) {
    uint32_t lo, hi;
    __asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index));
    return (uint64_t)hi << 32 | lo;
}

static inline void op_wrmsr(uint32_t index, uint64_t value) {
    __asm volatile("wrmsr" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
}

static inline void op_xsetbv(uint64_t value) {
    __asm volatile("xsetbv" ::"c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
}

static inline uint64_t op_xgetbv(void) {
    uint32_t lo, hi;
    __asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

#define OP_REGISTER(name)                                                                          \
    static inline uint64_t op_get_##name(void) {                                                   \
        uint64_t value;                                                                            \
        __asm volatile("mov %%" #name ", %0" : "=r"(value));                                       \
        return value;                                                                              \
    }                                                                                              \
    static inline void op_set_##name(uint64_t value) {                                             \
        __asm volatile("mov %0, %%" #name ::"r"(value) : "memory");                                \
    }
OP_REGISTER(cr0)
OP_REGISTER(cr2)
OP_REGISTER(cr3)
OP_REGISTER(cr4)
OP_REGISTER(cr8)
OP_REGISTER(dr0)
OP_REGISTER(dr1)
OP_REGISTER(dr2)
OP_REGISTER(dr3)
OP_REGISTER(dr6)
#endif
