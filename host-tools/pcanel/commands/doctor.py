"""`pcanel doctor`: what this machine has, what `auto` would choose and why, and what mends each lack."""

import argparse

from pcanel.engines.choose import choose
from pcanel.health import Finding, examine

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
    print(f"\n--engine auto takes {choice.engine.name}: {choice.reason}")
    return 1 if _lacking(findings) else 0


def _lacking(findings: list[Finding]) -> bool:
    return any(finding.state is False for finding in findings)
