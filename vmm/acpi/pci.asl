/*
 * The SSDT of guests with PCI: the host bridge, its windows, the routes of INTx.
 *
 * vmm/pci/board.py has the same windows, lines and place of configuration space.
 */
DefinitionBlock ("", "SSDT", 2, "PCANEL", "PCANELPC", 1)
{
    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
                IO (Decode16, 0xCF8, 0xCF8, 1, 1)
                IO (Decode16, 0xCFC, 0xCFC, 1, 4)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0xC000, 0xFFFF, 0, 0x4000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xE0000000, 0xFEBFFFFF, 0, 0x1EC00000)
            })

            // Configuration space is in memory, too (the MCFG): kernels use it only where it is said to be taken.
            Device (ECAM)
            {
                Name (_HID, EisaId ("PNP0C02"))
                Name (_UID, 1)
                Name (_CRS, ResourceTemplate ()
                {
                    Memory32Fixed (ReadWrite, 0xFEF00000, 0x00100000)
                })
            }

            // The same lines for the 8259s and the I/O APIC; the MADT says that they are levels.
            Method (_PRT, 0, Serialized)
            {
                Name (RTES, Package (128) {})
                Local0 = 0
                While (Local0 < 128)
                {
                    Local1 = Package (4) { 0, 0, 0, 10 }
                    Local1[0] = ((Local0 >> 2) << 16) | 0xFFFF
                    Local1[1] = Local0 & 3
                    If ((((Local0 >> 2) + (Local0 & 3)) - 1) & 2)
                    {
                        Local1[3] = 11
                    }
                    RTES[Local0] = Local1
                    Local0++
                }
                Return (RTES)
            }
        }
    }
}
