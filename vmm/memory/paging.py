"""The guest's paging: translates guest-virtual to guest-physical addresses as the CPU does.

No paging, 32-bit with PSE and PSE-36, PAE, 4-level and 5-level; access rights with WP,
NXE, SMEP, SMAP and the protection keys of user pages; accessed and dirty flags. Limits: shadow
stacks and the keys of supervisor pages are not checked; flags are set without a lock, since the
guest's other CPUs do not run meanwhile. Source: SDM Vol. 3A, "Paging"; "PDPTE Registers".

Entries are read in 32-bit halves, and a gva may be signed: the kernel half of the
address space is then a small int, too, and a translation allocates nothing.
"""

from micropython import const

from vmm.vtx.x86 import CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PKE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE

# Bits of `access`, at first those of the page-fault error code
WRITE = const(1 << 1)
USER = const(1 << 2)
FETCH = const(1 << 4)
AC = const(1 << 18)  # EFLAGS.AC: SMAP does not apply
PEEK = const(1 << 19)  # debugger: no rights checked, no accessed and dirty flags set
CHECK = const(1 << 20)  # rights checked, no accessed and dirty flags set

P = const(1 << 0)
RSVD = const(1 << 3)
_PK = const(1 << 5)
_CODE = const(WRITE | USER | FETCH)

# Results below zero that are not ~error_code
NOT_CANONICAL = const(-0x10000)
UNBACKED = const(-0x10001)  # a paging structure outside guest RAM

ADDRESS = const(0xFFFFFFFFFF000)  # of an entry of 64 bits, and of CR3
RW = const(1 << 1)
US = const(1 << 2)
PWT = const(1 << 3)
PCD = const(1 << 4)
_A = const(1 << 5)
D = const(1 << 6)
PS = const(1 << 7)
XD = const(1 << 63)
_XD_HIGH = const(XD >> 32)  # in an entry's upper half


class Walker:
    """Translates for one vCPU; load() it with the control registers first.

    maxphyaddr  width of physical addresses (CPUID 80000008H)
    page_1g     whether 1 GiB pages exist (CPUID 80000001H)
    """

    def __init__(self, memory, maxphyaddr=46, page_1g=True):
        self._memory = memory
        self._maxphyaddr = maxphyaddr
        self._page_1g = page_1g
        self.load(0, 0, 0, 0)

    def follow(self, vcpu, cr3=None):
        """Load a vCPU's registers; with `cr3` for another task, whose PDPTEs are in memory only."""
        cr0 = vcpu.cr0
        cr4 = vcpu.cr4
        efer = vcpu.efer
        pdptes = None
        if cr3 is None:
            cr3 = vcpu.cr3
            if cr0 & CR0_PG and cr4 & CR4_PAE and not efer & EFER_LMA:
                pdptes = vcpu.pdptes()
        self.load(cr0, cr3, cr4, efer, pdptes, vcpu)

    def load(self, cr0, cr3, cr4, efer, pdptes=None, vcpu=None):
        """Load the control registers; `mode` becomes 0, 32, 36 (PAE), 48 or 57.

        pdptes: the four PDPTE registers; None: they are read from memory. vcpu: its `pkru` is read only if CR4.PKE is
        set and a user page is accessed, since that is expensive.
        """
        if not cr0 & CR0_PG:
            self.mode = self.shift = 0
        elif not cr4 & CR4_PAE:
            self.mode = 32
        elif not efer & EFER_LMA:
            self.mode = 36
            self.shift = 30
        elif not cr4 & CR4_LA57:
            self.mode = 48
            self.shift = 39
        else:
            self.mode = 57
            self.shift = 48
        self.root = cr3 & (0xFFFFFFE0 if self.mode == 36 else ADDRESS)
        self._pse = cr4 & CR4_PSE
        self._wp = cr0 & CR0_WP
        self._smep = cr4 & CR4_SMEP
        self._smap = cr4 & CR4_SMAP
        self._pdptes = pdptes
        self._keys = vcpu if cr4 & CR4_PKE and self.mode >= 48 else None
        nxe = efer & EFER_NXE and self.mode > 32
        self.no_execute = nxe
        self._fetch_reported = bool(nxe or self._smep)
        reserved = 0xFFFFF & ~((1 << max(self._maxphyaddr - 32, 0)) - 1)
        if self.mode == 36:
            reserved |= 0x7FF00000
        self._reserved_high = reserved if nxe else reserved | _XD_HIGH

    def translate(self, gva, access):
        """The gpa of `gva` for `access` (WRITE, USER, FETCH, AC, PEEK, CHECK; 0 is a read).

        Below zero: ~error_code of the #PF to inject, NOT_CANONICAL (a #GP or #SS), or
        UNBACKED. `gva` is unsigned or, above the hole, signed.
        """
        mode = self.mode
        if mode < 48:
            gva &= 0xFFFFFFFF
            if mode == 0:
                return gva
        else:
            if gva >= 1 << 63:
                gva -= 1 << 64
            upper = gva >> (mode - 1)
            if upper != 0 and upper != -1:
                return NOT_CANONICAL
        try:
            if mode == 32:
                return self._walk_32(gva, access)
            return self._walk_64(gva, access)
        except ValueError:
            return UNBACKED

    def _fault(self, access, bits):
        if not self._fetch_reported:
            access &= ~FETCH
        return ~(access & _CODE | bits)

    def _walk_64(self, gva, access):
        memory = self._memory
        shift = self.shift
        table = self.root
        rights = flags = 0xFFFFFFFF
        no_execute = 0
        if self._pdptes is not None:
            pdpte = self._pdptes[gva >> 30]
            if not pdpte & P:
                return self._fault(access, 0)
            table = pdpte & ADDRESS
            shift = 21
        while True:
            entry_gpa = table + (gva >> shift & 511) * 8
            low = memory.read_u32(entry_gpa)
            if not low & P:
                return self._fault(access, 0)
            high = memory.read_u32(entry_gpa + 4)
            if high & self._reserved_high:
                return self._fault(access, P | RSVD)
            table = (high & 0xFFFFF) << 32 | low & 0xFFFFF000
            if shift == 30 and self.mode == 36:
                shift = 21  # a PDPTE of PAE has neither rights nor flags
                continue
            rights &= low
            flags &= low
            no_execute |= high & _XD_HIGH
            if shift == 12:
                break
            if low & PS:
                if shift > 30 or (shift == 30 and not self._page_1g):
                    return self._fault(access, P | RSVD)
                if low & ((1 << shift) - 1) & 0xFFFFE000:
                    return self._fault(access, P | RSVD)
                break
            shift -= 9
        if not access & PEEK:
            denied = _PK if self._keys is not None and rights & US and self._key_denies(access, high) else 0
            if denied or self._refused(access, rights, no_execute):
                return self._fault(access, P | denied)
            if not access & CHECK and (not flags & _A or (access & WRITE and not low & D)):
                self._mark_64(gva, access)
        offset = (1 << shift) - 1
        return table & ~offset | gva & offset

    def _key_denies(self, access, high):
        """Whether the protection key of a user page, in the upper half of its entry, forbids a data access."""
        if access & FETCH:
            return False
        bits = self._keys.pkru >> (high >> 26 & 30)
        return bool(bits & 1 or (bits & 2 and access & WRITE and (access & USER or self._wp)))

    def _refused(self, access, rights, no_execute):
        """Whether the rights collected during the walk forbid the access."""
        if access & FETCH and no_execute:
            return True
        if access & USER:
            if not rights & US:
                return True
            return access & WRITE and not rights & RW
        if access & WRITE and self._wp and not rights & RW:
            return True
        if rights & US:
            if access & FETCH:
                return self._smep
            return self._smap and not access & AC
        return False

    def _mark(self, entry_gpa, low, flags):
        if low & flags != flags:
            self._memory.write_u8(entry_gpa, (low | flags) & 0xFF)

    def _mark_64(self, gva, access):
        """Set the accessed flags on the way to `gva`, and the dirty flag at its end."""
        memory = self._memory
        shift = self.shift
        table = self.root
        if self._pdptes is not None:
            table = self._pdptes[gva >> 30] & ADDRESS
            shift = 21
        while True:
            entry_gpa = table + (gva >> shift & 511) * 8
            low = memory.read_u32(entry_gpa)
            table = (memory.read_u32(entry_gpa + 4) & 0xFFFFF) << 32 | low & 0xFFFFF000
            if shift == 30 and self.mode == 36:
                shift = 21
                continue
            if shift == 12 or low & PS:
                self._mark(entry_gpa, low, _A | D if access & WRITE else _A)
                return
            self._mark(entry_gpa, low, _A)
            shift -= 9

    def _walk_32(self, gva, access):
        memory = self._memory
        pde_gpa = self.root + (gva >> 22) * 4
        pde = memory.read_u32(pde_gpa)
        if not pde & P:
            return self._fault(access, 0)
        leaf = _A | D if access & WRITE else _A
        if pde & PS and self._pse:
            width = max(min(self._maxphyaddr, 40) - 32, 0)
            if pde >> 21 & 1 or pde >> 13 & 0xFF & ~((1 << width) - 1):
                return self._fault(access, P | RSVD)
            if not access & PEEK:
                if self._refused(access, pde, 0):
                    return self._fault(access, P)
                if not access & CHECK:
                    self._mark(pde_gpa, pde, leaf)
            return (pde >> 13 & 0xFF) << 32 | pde & 0xFFC00000 | gva & 0x3FFFFF
        pte_gpa = (pde & 0xFFFFF000) + (gva >> 12 & 1023) * 4
        pte = memory.read_u32(pte_gpa)
        if not pte & P:
            return self._fault(access, 0)
        if not access & PEEK:
            if self._refused(access, pde & pte, 0):
                return self._fault(access, P)
            if not access & CHECK:
                self._mark(pde_gpa, pde, _A)
                self._mark(pte_gpa, pte, leaf)
        return pte & 0xFFFFF000 | gva & 0xFFF
