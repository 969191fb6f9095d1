// qstrs that no source file spells as MP_QSTR_.
