"""`make size`: the image by section, and its largest symbols.

usage: python -m pcanel.size ELF
"""

import sys
from pathlib import Path

from pcanel.symbols import Symbols, sections

_LARGEST = 25


def main() -> None:
    elf = Path(sys.argv[1])
    print(f"{elf}: {elf.stat().st_size:,} bytes on disk (with debug information)")
    parts = sections(elf)
    for name, size in parts:
        print(f"{size:12,}  {name}")
    print(f"{sum(size for _, size in parts):12,}  in memory\n")
    symbols = sorted(Symbols(elf).all, key=lambda symbol: symbol.size, reverse=True)
    for symbol in symbols[:_LARGEST]:
        print(f"{symbol.size:12,}  {symbol.name}")


if __name__ == "__main__":
    main()
