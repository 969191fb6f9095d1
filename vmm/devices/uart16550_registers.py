"""Registers of the 16550A and their bits (National Semiconductor PC16550D data sheet): for guests' UARTs (uart16550.py)
and for the host's (port/uart.c).
"""

from micropython import const

# Registers by offset.
RBR = const(0)  # read
THR = const(0)  # written
DLL = const(0)  # with LCR_DLAB
IER = const(1)
DLM = const(1)  # with LCR_DLAB
IIR = const(2)  # read
FCR = const(2)  # written
LCR = const(3)
MCR = const(4)
LSR = const(5)
MSR = const(6)
SCR = const(7)

IER_RX = const(0x01)
IER_THRE = const(0x02)
IER_LINE = const(0x04)
IER_MODEM = const(0x08)

IIR_NONE = const(0x01)
IIR_MODEM = const(0x00)
IIR_THRE = const(0x02)
IIR_RX = const(0x04)
IIR_LINE = const(0x06)
IIR_TIMEOUT = const(0x0C)
IIR_FIFO = const(0xC0)

FCR_ENABLE = const(0x01)
FCR_CLEAR_RX = const(0x02)
FCR_CLEAR_TX = const(0x04)

LCR_8N1 = const(0x03)
LCR_BREAK = const(0x40)
LCR_DLAB = const(0x80)

MCR_DTR = const(0x01)
MCR_RTS = const(0x02)
MCR_OUT2 = const(0x08)
MCR_LOOP = const(0x10)

LSR_DR = const(0x01)
LSR_OE = const(0x02)
LSR_BI = const(0x10)
LSR_ERRORS = const(0x1E)  # OE, PE, FE, BI
LSR_THRE = const(0x20)
LSR_TEMT = const(0x40)
LSR_FIFO_ERROR = const(0x80)

# MSR: bits 7..4 are the inputs DCD, RI, DSR, CTS; bits 3..0 are set by their changes.
MSR_CTS = const(0x10)
MSR_DSR = const(0x20)
MSR_RI = const(0x40)
MSR_DCD = const(0x80)

FIFO_SIZE = const(16)  # characters
