"""Mutations of checkpoints of other formats: their settings, their tensors, and the headers of GGUF files."""

import json
import random
from pathlib import Path
from typing import Any

from .gguf_mutations import mutate_gguf
from .mutations import dumps, mutate, mutate_value
from .tensor_mutations import mutate_tensors

Random = random.Random

SETTINGS = ("quantization_config", "quantization", "compression_config")
FILES = ("adapter_config.json", "quantize_config.json", "quant_config.json")
PLAUSIBLE = (0, 1, 2, 3, 4, 5, 6, 8, 16, 32, 48, 64, 96, 128, 256, -1, "4", 4.0, True, None, [4], [128, 128], [0, 0])


def mutate_input(folder: Path, choice: Random) -> str:
    """Change one to three things of a checkpoint of another format; return what was changed."""
    count = choice.choice((1, 1, 1, 2, 3))
    return "; ".join(_mutate_one(folder, choice) for _ in range(count))


def _mutate_one(folder: Path, choice: Random) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    ways = []
    for path in files:
        if path.suffix == ".gguf":
            ways += [path] * 12
        elif path.suffix == ".safetensors" or path.name in FILES:
            ways += [path] * 3
        elif path.name == "config.json":
            ways += [path] * 2
    if not ways or choice.random() < 0.15:
        return mutate(folder, choice)
    path = choice.choice(ways)
    name = path.relative_to(folder).as_posix()
    try:
        if path.suffix == ".gguf":
            changed, what = mutate_gguf(path.read_bytes(), choice)
            path.write_bytes(changed)
        elif path.suffix == ".safetensors":
            what = mutate_tensors(path, choice)
        else:
            what = _mutate_settings(path, choice)
    except (ValueError, OSError, RecursionError):
        return mutate(folder, choice)
    return f"{name}: {what}"


def _mutate_settings(path: Path, choice: Random) -> str:
    """Change the settings of a quantization or an adapter, those of config.json apart from its other keys."""
    values: Any = json.loads(path.read_bytes())
    if path.name in FILES:
        values, what = _changed(values, choice)
    else:
        keys = [key for key in SETTINGS if key in values] if isinstance(values, dict) else []
        if not keys:
            raise ValueError("no settings")
        key = choice.choice(keys)
        values[key], what = _changed(values[key], choice)
    path.write_bytes(dumps(values))
    return f"settings {what}"


def _changed(settings: Any, choice: Random) -> tuple[Any, str]:
    if isinstance(settings, dict) and settings and choice.random() < 0.5:
        place, path = settings, []
        while True:
            key = choice.choice(sorted(place))
            path.append(key)
            if not isinstance(place[key], dict) or not place[key]:
                break
            place = place[key]
        place[key] = choice.choice(PLAUSIBLE)
        return settings, f"{'.'.join(path)} = {place[key]!r}"
    return mutate_value("quantization_config", settings, choice)
