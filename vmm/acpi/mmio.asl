/*
 * A virtio device by registers in memory, of which the DSDT gets the device. The monitor makes one such device for each that a guest has, with
 * its number, address and interrupt line (vmm/devices/virtio/places.py).
 */
DefinitionBlock ("", "SSDT", 2, "PCANEL", "PCANELVM", 1)
{
    Device (\_SB.VM00)
    {
        Name (_HID, "LNRO0005")
        Name (_UID, 0xA1A1A1A1)
        Name (_CCA, 1)
        Name (_CRS, ResourceTemplate ()
        {
            Memory32Fixed (ReadWrite, 0xA2A2A2A2, 0x1000)
            Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 0xA3A3A3A3 }
        })
    }
}
