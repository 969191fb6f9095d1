"""The environment variable by which `pcanel drgn` describes a running guest to drgn's plug-in, as JSON."""

VARIABLE = "PCANEL_GUEST"
