"""`pcanel doctor`: what this machine has, what `auto` would choose, why and how fast it is, what mends each lack."""

import argparse

from pcanel.engines import bochs_programs, speed
from pcanel.engines.bochs import Bochs
from pcanel.engines.choose import Choice, choose
from pcanel.errors import PcanelError
from pcanel.health import Finding, examine
from pcanel.paths import ELF

_MARKS = {True: "ok  ", False: "LACK", None: "--  "}


def add_to(commands) -> None:
    parser = commands.add_parser("doctor", help="what this machine has and lacks", description=__doc__)
    parser.set_defaults(handler=_doctor)


def _doctor(_options: argparse.Namespace) -> int:
    findings = examine()
    for finding in findings:
        print(f"{_MARKS[finding.state]}  {finding.subject:16} {finding.words}")
        if finding.mend:
            print(f"      {'':16} mend: {finding.mend}")
    choice = choose("auto")
    print(f"\n--engine auto takes {choice.engine.name}{_speed(choice)}: {choice.reason}")
    return 1 if _lacking(findings) else 0


def _speed(choice: Choice) -> str:
    """Which Bochs, and its speed now, in brackets; nothing for another engine, whose speed is the machine's."""
    if not issubclass(choice.engine, Bochs):
        return ""
    words = bochs_programs.first(choice.engine.programs).words
    if not ELF.is_file():
        return f" ({words})"
    try:
        return f" ({words}: {speed.measure(choice) / 1e6:.0f} million instructions a second)"
    except PcanelError as error:
        first = str(error).split("\n", 1)[0]
        return f" ({words}; it does not start: {first})"


def _lacking(findings: list[Finding]) -> bool:
    return any(finding.state is False for finding in findings)
