// Entry from the boot loader: Multiboot headers, 32-bit protected mode to
// 64-bit long mode, then port_main(magic, information).
//
// The Multiboot 1 header carries load addresses ("a.out kludge", flag bit 16):
// QEMU's -kernel refuses an ELF64 file without them. GRUB takes either header.
// Source: Multiboot Specification 0.6.96, section 3; Multiboot2 Specification
// 2.0, section 3; SDM Vol. 3A, "Initializing IA-32e Mode".

#include "port/segments.h"
#include "shared_constants.h"

#define MULTIBOOT1_HEADER_MAGIC 0x1badb002
#define MULTIBOOT1_FLAGS        0x00010003      // page align, memory map, addresses
#define MULTIBOOT2_HEADER_MAGIC 0xe85250d6

#define PTE_P_RW    (PTE_P | PTE_RW)
#define PTE_P_RW_PS (PTE_P | PTE_RW | PTE_PS)

    .section .multiboot, "a"
    .balign 8
multiboot2_header:
    .long MULTIBOOT2_HEADER_MAGIC
    .long 0                                     // i386 protected mode
    .long multiboot2_end - multiboot2_header
    .long -(MULTIBOOT2_HEADER_MAGIC + (multiboot2_end - multiboot2_header))
    .balign 8
    .short 6, 0                                 // module alignment tag
    .long 8
    .balign 8
    .short 0, 0                                 // end tag
    .long 8
multiboot2_end:

    .balign 4
multiboot1_header:
    .long MULTIBOOT1_HEADER_MAGIC
    .long MULTIBOOT1_FLAGS
    .long -(MULTIBOOT1_HEADER_MAGIC + MULTIBOOT1_FLAGS)
    .long multiboot1_header
    .long image_start
    .long image_load_end
    .long image_end
    .long boot_entry

    .section .boot.text, "ax"
    .code32
    .globl boot_entry
boot_entry:
    cli
    cld
    mov     %eax, %ebp                          // loader's magic
    mov     %ebx, %esi                          // loader's information
    mov     $boot_stack_end, %esp

    mov     $0x80000000, %eax
    cpuid
    cmp     $0x80000001, %eax
    jb      no_long_mode
    mov     $0x80000001, %eax
    cpuid
    test    $CPUID_EXTENDED_1_EDX_LM, %edx
    jz      no_long_mode

    // Identity map of the low 4 GiB with 2 MiB pages; paging.c refines it.
    mov     $paging_pml4, %edi
    movl    $(paging_pdpt + PTE_P_RW), (%edi)
    mov     $paging_pdpt, %edi
    mov     $(paging_low_pd + PTE_P_RW), %eax
    mov     $4, %ecx
1:  mov     %eax, (%edi)
    add     $4096, %eax
    add     $8, %edi
    loop    1b
    mov     $paging_low_pd, %edi
    mov     $PTE_P_RW_PS, %eax
    mov     $(4 * 512), %ecx
1:  mov     %eax, (%edi)
    add     $0x200000, %eax
    add     $8, %edi
    loop    1b

    mov     $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
    mov     %eax, %cr4
    mov     $paging_pml4, %eax
    mov     %eax, %cr3
    mov     $IA32_EFER, %ecx
    rdmsr
    or      $(EFER_LME | EFER_NXE), %eax
    wrmsr
    mov     %cr0, %eax
    and     $~(CR0_CD | CR0_NW | CR0_EM | CR0_TS), %eax
    or      $(CR0_PG | CR0_WP | CR0_NE | CR0_MP), %eax
    mov     %eax, %cr0
    lgdt    boot_gdtr
    ljmp    $HOST_CS, $boot_entry64

no_long_mode:                                   // say so on COM1, and stop
    mov     $no_long_mode_text, %esi
1:  mov     $(PC_COM1 + UART_LSR), %dx
    in      %dx, %al
    test    $UART_LSR_THRE, %al
    jz      1b
    mov     $PC_COM1, %dx
    lodsb
    test    %al, %al
    jz      2f
    out     %al, %dx
    jmp     1b
2:  hlt
    jmp     2b
no_long_mode_text:
    .asciz  "Pcanel/Py: this CPU has no 64-bit mode\r\n"

    .code64
boot_entry64:
    mov     $HOST_DS, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    mov     $boot_stack_end, %rsp
    mov     %ebp, %edi
    mov     %esi, %esi
    xor     %ebp, %ebp                          // ends every backtrace
    call    port_main
3:  hlt
    jmp     3b

    .section .rodata
    .balign 8
boot_gdtr:
    .short  GDT_SIZE - 1
    .quad   gdt

// Page tables and stacks, in the order that paging.c relies on: the page below
// each stack stays unmapped.
    .section .bss.boot, "aw", @nobits
    .balign 4096
    .globl paging_pml4, paging_pdpt, paging_low_pd
paging_pml4:    .skip 4096
paging_pdpt:    .skip 4096
paging_low_pd:  .skip 4 * 4096
    .globl boot_stack_guard, boot_stack, boot_stack_end
boot_stack_guard: .skip 4096
boot_stack:     .skip BOOT_STACK_SIZE
boot_stack_end:
    .globl ist_stacks
ist_stacks:     .skip IST_COUNT * (4096 + IST_STACK_SIZE)

    .section .note.GNU-stack, "", @progbits
