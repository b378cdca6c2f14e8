"""GGUF files by their names: alone, in a folder, and split in parts (``NAME-00001-of-00003.gguf``)."""

import re
from pathlib import Path

GGUF = ".gguf"
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""llama.cpp's names of the parts (llama_split_path)."""
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
MOST_NAMED = 8
"""Files that a message names."""


def gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF files of a folder that has no other weights; of a split one the first part alone."""
    if any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        return []
    found = sorted(path for path in folder.glob(f"*{GGUF}") if not path.is_dir())
    return [path for path in found if (part := PART.fullmatch(path.name)) is None or int(part[2]) == 1] or found[:1]


def gguf_file(place: Path) -> Path | None:
    """Return the GGUF file that a place is, or the only one of a folder; None where it is something else."""
    if place.is_dir():
        found = gguf_files(place)
        return found[0] if len(found) == 1 else None
    return place if place.suffix == GGUF and place.exists() else None


def several(folder: Path) -> str | None:
    """Return a refusal of a folder with several GGUF files, which continues "FOLDER ..."; None for any other folder."""
    found = gguf_files(folder)
    if len(found) < 2:
        return None
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"holds several GGUF files ({', '.join(path.name for path in found[:MOST_NAMED])}{more}); name one of them"


def parts(name: str) -> list[str] | None:
    """Return the names of all parts of a split file from that of one; None for a file that is not split."""
    part = PART.fullmatch(name)
    if part is None:
        return None
    return [f"{part[1]}-{number:05}-of-{part[3]}{GGUF}" for number in range(1, int(part[3]) + 1)]
