"""Guest code for tests, assembled by keystone-engine (needs the `test` extra)."""

from keystone import KS_ARCH_X86, KS_MODE_16, KS_MODE_32, KS_MODE_64, Ks, KsError

from pcanel.errors import InputError

_MODES = {16: KS_MODE_16, 32: KS_MODE_32, 64: KS_MODE_64}


def assemble(source: str, bits: int = 64, address: int = 0) -> bytes:
    """Machine code of Intel-syntax `source` for `bits` (16, 32, 64), placed at `address`.

    Comments start with '#'. Raises InputError with the assembler's words.
    """
    lines = [line.partition("#")[0].strip() for line in source.splitlines()]
    text = "\n".join(line for line in lines if line)
    try:
        code, _ = Ks(KS_ARCH_X86, _MODES[bits]).asm(text, address)
    except KsError as error:
        raise InputError(f"{error}: {text}") from error
    return bytes(code)
