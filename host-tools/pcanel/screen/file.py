"""A guest's screen as a picture in a file."""

from pathlib import Path

from PIL import Image

from pcanel.errors import InputError
from pcanel.ram.guest import Memory
from pcanel.screen.source import Facts, Source


def write(path: Path, facts: Facts, memory: Memory) -> str:
    """Writes it, in the format that the file's name ends with; a line about it. InputError, EngineError."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: the name of a picture ends with .png")
    picture = Image.fromarray(Source(memory, facts).picture())
    try:
        picture.save(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    return f"{path}: the screen of {facts.name}, {picture.width} x {picture.height}"
