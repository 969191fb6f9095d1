"""A console's past output without what a terminal would answer.

A guest asks its terminal things: where the cursor is, what kind it is, which colours it has. Shown again later,
the terminal would answer again, and the answer would be typed into the guest. So of the control functions of
ECMA-48 only those pass that put text, colours and the cursor on the screen; whatever else there is, known or
not, is left out. Source: ECMA-48, sections 5.3 to 5.6; xterm's control sequences (ctlseqs).
"""

import re

_C0 = "\x00-\x06\x0e-\x1a\x1c-\x1f\x7f"  # but BEL, BS, HT, LF, VT, FF, CR; 05h (ENQ) has answers
_FINALS = "@ABCDEFGHIJKLMPSTXZ`abdefm"  # cursor, erasing, scrolling, colours: CSI without prefix and intermediates
_MODES = "hl"  # set, reset
# Private modes: cursor keys, video, wrapping, the cursor, the other screen, the mouse, pasting. Some others answer.
_PRIVATE = {str(mode) for mode in (1, 5, 6, 7, 12, 25, 47, 1000, 1002, 1003, 1005, 1006, 1015, 1047, 1048, 1049, 2004)}
_SINGLE = "78DEHM=>c"  # ESC and one character: cursor kept and restored, line feeds, keypad, reset
_CONTROLS = "\x08\t\n\x0b\x0c\r"  # inside a sequence a terminal obeys them as if they stood before it

_FUNCTION = re.compile(
    r"(?:\x1b\[|\x9b)(?P<parameters>[0-?\x00-\x17\x19\x1c-\x1f]*?)(?P<intermediates>[ -/]*)(?P<final>[@-~])"
    r"|(?:\x1b[P\]X^_]|[\x90\x9d\x98\x9e\x9f])[^\x07\x18\x1a\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)?"  # up to ST or BEL
    r"|\x1b(?P<set>[ -/]+[0-~])"
    r"|\x1b(?P<single>[0-~])?"
    r"|[\x80-\x9f]"
    rf"|[{_C0}]"
)


def harmless(log: bytes) -> bytes:
    """`log` as UTF-8 text with the display functions alone."""
    return _FUNCTION.sub(_kept, log.decode(errors="replace")).encode()


def _kept(match: re.Match) -> str:
    if match["final"]:
        obeyed = "".join(c for c in match["parameters"] if c in _CONTROLS)
        parameters = "".join(c for c in match["parameters"] if "0" <= c <= "?")
        return obeyed + _sequence(parameters, match["intermediates"], match["final"])
    if match["set"]:
        return f"\x1b{match['set']}" if match["set"][0] in "()*+" else ""  # a character set
    if match["single"]:
        return f"\x1b{match['single']}" if match["single"] in _SINGLE else ""
    return ""


def _sequence(parameters: str, intermediates: str, final: str) -> str:
    if parameters[:1] in tuple("<=>?"):
        passes = parameters[0] == "?" and final in _MODES and _PRIVATE.issuperset(parameters[1:].split(";"))
    else:
        passes = final in _FINALS + _MODES + "rsu"  # and the scrolling region, the cursor kept and restored
    return f"\x1b[{parameters}{final}" if passes and not intermediates else ""
