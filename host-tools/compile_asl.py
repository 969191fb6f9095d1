"""compile_asl.py SOURCE.asl OUTPUT.py: compiles with iasl, writes AML as a Python constant."""

import subprocess
import sys
from pathlib import Path


def compile_asl(source, prefix):
    """The AML of `source`, kept as `prefix`.aml too; warnings are errors."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["iasl", "-we", "-p", str(prefix), str(source)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("%s: iasl:\n%s%s" % (source, done.stdout, done.stderr))
    return prefix.with_suffix(".aml").read_bytes()


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    aml = compile_asl(source, output.with_suffix(""))
    lines = ["    %r" % aml[at : at + 32] for at in range(0, len(aml), 32)]
    text = '"""Compiled from %s."""\n\nAML = (\n%s\n)\n' % (source.name, "\n".join(lines))
    output.write_text(text)


if __name__ == "__main__":
    main()
