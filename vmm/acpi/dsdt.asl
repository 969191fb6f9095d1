/*
 * The DSDT: the devices of a guest's ISA bus, its processors, soft-off.
 *
 * CPUS and the _STA that are 0xA5C35A3C are placeholders that vmm/acpi/tables.py replaces for each guest; their
 * values only have to be unlikely, and too wide for a shorter encoding.
 * An optional device begins with such an _STA: tables.py finds it behind the device's name.
 */
DefinitionBlock ("", "DSDT", 2, "PCANEL", "PCANELPY", 1)
{
    Name (CPUS, 0xA5C35A3D)

    // SLP_TYP for PM1a_CNT and PM1b_CNT
    Name (\_S5, Package () { 5, 5, 0, 0 })

    // 0 for the 8259s, 1 for the I/O APIC
    Name (PICM, 0)
    Method (\_PIC, 1)
    {
        PICM = Arg0
    }

    Method (ISCP, 1)
    {
        If (Arg0 < CPUS)
        {
            Return (0x0F)
        }
        Return (0)
    }

    Scope (\_SB)
    {
        Device (COM1)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x3F8, 0x3F8, 1, 8)
                IRQNoFlags () { 4 }
            })
        }

        Device (COM2)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 2)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x2F8, 0x2F8, 1, 8)
                IRQNoFlags () { 3 }
            })
        }

        Device (COM3)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 3)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x3E8, 0x3E8, 1, 8)
                IRQNoFlags () { 4 }
            })
        }

        Device (COM4)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 4)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x2E8, 0x2E8, 1, 8)
                IRQNoFlags () { 3 }
            })
        }

        Device (KBD)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0303"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x60, 0x60, 1, 1)
                IO (Decode16, 0x64, 0x64, 1, 1)
                IRQNoFlags () { 1 }
            })
        }

        Device (MOU)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0F13"))
            Name (_CRS, ResourceTemplate ()
            {
                IRQNoFlags () { 12 }
            })
        }

        Device (PIC)
        {
            Name (_HID, EisaId ("PNP0000"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x20, 0x20, 1, 2)
                IO (Decode16, 0xA0, 0xA0, 1, 2)
                IO (Decode16, 0x4D0, 0x4D0, 1, 2)
                IRQNoFlags () { 2 }
            })
        }

        Device (PIT)
        {
            Name (_HID, EisaId ("PNP0100"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x40, 0x40, 1, 4)
                IRQNoFlags () { 0 }
            })
        }

        Device (SPKR)
        {
            Name (_HID, EisaId ("PNP0800"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x61, 0x61, 1, 1)
            })
        }

        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x70, 0x70, 1, 2)
                IRQNoFlags () { 8 }
            })
        }

        Device (HPET)
        {
            Name (_STA, 0xA5C35A3C)
            Name (_HID, EisaId ("PNP0103"))
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadOnly, 0xFED00000, 0x400)
            })
        }

        // Motherboard resources: PM1a_EVT, PM1a_CNT, PM_TMR, GPE0; reset; I/O APIC, local APIC
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x600, 0x600, 1, 0x10)
                IO (Decode16, 0xCF9, 0xCF9, 1, 1)
                Memory32Fixed (ReadWrite, 0xFEC00000, 0x1000)
                Memory32Fixed (ReadWrite, 0xFEE00000, 0x1000)
            })
        }

        // One Processor Local APIC entry of the MADT each
        Device (CP00) { Name (_HID, "ACPI0007") Name (_UID, 0) Method (_STA) { Return (ISCP (0)) } }
        Device (CP01) { Name (_HID, "ACPI0007") Name (_UID, 1) Method (_STA) { Return (ISCP (1)) } }
        Device (CP02) { Name (_HID, "ACPI0007") Name (_UID, 2) Method (_STA) { Return (ISCP (2)) } }
        Device (CP03) { Name (_HID, "ACPI0007") Name (_UID, 3) Method (_STA) { Return (ISCP (3)) } }
        Device (CP04) { Name (_HID, "ACPI0007") Name (_UID, 4) Method (_STA) { Return (ISCP (4)) } }
        Device (CP05) { Name (_HID, "ACPI0007") Name (_UID, 5) Method (_STA) { Return (ISCP (5)) } }
        Device (CP06) { Name (_HID, "ACPI0007") Name (_UID, 6) Method (_STA) { Return (ISCP (6)) } }
        Device (CP07) { Name (_HID, "ACPI0007") Name (_UID, 7) Method (_STA) { Return (ISCP (7)) } }
        Device (CP08) { Name (_HID, "ACPI0007") Name (_UID, 8) Method (_STA) { Return (ISCP (8)) } }
        Device (CP09) { Name (_HID, "ACPI0007") Name (_UID, 9) Method (_STA) { Return (ISCP (9)) } }
        Device (CP0A) { Name (_HID, "ACPI0007") Name (_UID, 10) Method (_STA) { Return (ISCP (10)) } }
        Device (CP0B) { Name (_HID, "ACPI0007") Name (_UID, 11) Method (_STA) { Return (ISCP (11)) } }
        Device (CP0C) { Name (_HID, "ACPI0007") Name (_UID, 12) Method (_STA) { Return (ISCP (12)) } }
        Device (CP0D) { Name (_HID, "ACPI0007") Name (_UID, 13) Method (_STA) { Return (ISCP (13)) } }
        Device (CP0E) { Name (_HID, "ACPI0007") Name (_UID, 14) Method (_STA) { Return (ISCP (14)) } }
        Device (CP0F) { Name (_HID, "ACPI0007") Name (_UID, 15) Method (_STA) { Return (ISCP (15)) } }
    }
}
