"""The environment variable by which `pcanel drgn` tells drgn's plug-in of a running guest, as JSON."""

VARIABLE = "PCANEL_GUEST"
