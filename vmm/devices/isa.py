"""Wide access to 8-bit chips: the ISA bus splits it into bytes at successive addresses, low first."""


def read_wide(chip, offset, size):
    """`size` bytes read one by one from `offset` on, as a little-endian integer."""
    value = 0
    for i in range(size):
        value |= chip.read(offset + i, 1) << (8 * i)
    return value


def write_wide(chip, offset, size, value):
    """`value` written one byte at a time from `offset` on, low byte first."""
    for i in range(size):
        chip.write(offset + i, 1, (value >> (8 * i)) & 0xFF)
