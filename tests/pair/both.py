"""The guest files of `make run`, changed for a test: a quiet Linux without self-tests spares Bochs half of its boot."""

from pcanel.paths import ROOT


def guest_files(directory, changes):
    """Write them into a directory, with {old: new} text changed in that of the real-time guest; their paths."""
    files = []
    for name, replaced in (("linux", {"console=ttyS0": "console=ttyS0 quiet cryptomgr.notests"}), ("rtos", changes)):
        text = (ROOT / f"guests/{name}.toml").read_text().replace("../build", str(ROOT / "build"))
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        files.append(directory / f"{name}.toml")
        files[-1].write_text(text)
    return files
