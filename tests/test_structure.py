"""The modules of the package: no import cycle, no import from a lower layer up, no folder with too many files."""

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("files", "devices", "models", "exporter", "runtime", "parity", "publishing", "serving", "cli", "interop")
MOST_FILES = 16

# The layers of each room, from the bottom up: folders and modules of the room, several on one layer where they do not
# import each other. A module may import from its own entry and from lower layers. A folder inside a folder has an entry
# of its own where it is on another layer; the longest entry counts.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "files": (
        "chat.sandbox gguf_files json_fields library_errors regular_file",
        "json_file",
        "embedding foreign_format generation_settings special_tokens",
        "tokenizer_file",
        "chat",
    ),
    "devices": (
        "presets",
        "rules",
        "expert_rules libraries",
        "findings",
        "kernels",
        "lint",
        "runtimes",
    ),
    "models": (
        "adapters.given",
        "activations dtypes reading rope",
        "config ops",
        "forward",
        "layers weight_source",
        "quantized.weights storage.store storage.safetensors_files",
        "gguf quantized storage",
        "exaone4 qwen2",
        "qwen2_moe",
        "family",
        "adapters heads",
        "loading",
        "checkpoint",
        "digest outline",
    ),
    "exporter": (
        "artifact_checkpoint companions instantiate lowering progress sentence_transformers signals tokenizer weights",
        "facts graph quantize trace",
        "fit_device passes write",
        "build",
        "export",
        "estimate",
    ),
    "runtime": (
        "folder graph numerics representation text",
        "kernels.edits",
        "kernels",
        "engine",
        "decoding sequence tasks",
        "chat",
        "generation",
        "load",
        "lm_eval measure",
    ),
    "parity": (
        "opening options report",
        "audit cases page",
        "locate record reference",
        "check",
    ),
    "publishing": (
        "bench failures names proof snippets",
        "repository",
        "arrangement",
        "card",
        "pushing",
    ),
    "serving": (
        "errors load record settings steps",
        "forms",
        "engine http protocol",
        "metrics tracing",
        "server",
        "http.gate",
        "http.layers",
        "endpoints",
        "app",
        "batch cluster run",
    ),
    "cli": (
        "show sizes texts",
        "loading main",
        "chatting inspection options parity_report progress",
        "load",
        "summary",
        "dry_run making",
        "verbs",
    ),
    "interop": ("optimum optimum_cli", "register"),
}
FRONT_DOORS = {"", *ROOMS}
"""Packages whose ``__init__`` only names what is public: they are above the layers."""


def modules() -> dict[str, Path]:
    """Return the package's modules by name, relative to ``intaglio``."""
    files = [*ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    found = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, file: Path, known: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield (line, module) for every import of a module of the package, those for type checkers included."""
    package = name.split(".") if file.name == "__init__.py" and name else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        for alias in node.names:
            submodule = f"{target}.{alias.name}".strip(".")
            yield node.lineno, submodule if submodule in known else target


def graph() -> dict[str, dict[str, str]]:
    """Return what each module imports: module to imported module to ``file:line``."""
    known = modules()
    found: dict[str, dict[str, str]] = {}
    for name, file in known.items():
        where = file.relative_to(ROOT)
        found[name] = {
            target: f"{where}:{line}"
            for line, target in imports(name, file, known)
            if target in known and target != name
        }
    return found


def cycle(edges: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return one cycle, each step as ``file:line imports module``, or an empty list."""
    done: set[str] = set()
    for start in edges:
        trail: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(edges[start]))]
        trail.append(start)
        while stack:
            name, remaining = stack[-1]
            following = next((target for target in remaining if target not in done), None)
            if following is None:
                done.add(name)
                stack.pop()
                trail.pop()
            elif following in trail:
                steps = [*trail[trail.index(following) :], following]
                return [f"{edges[a][b]} imports {b}" for a, b in pairwise(steps)]
            else:
                trail.append(following)
                stack.append((following, iter(edges[following])))
    return []


def upward(room: str, layers: tuple[str, ...], edges: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the imports of a room that do not point to a lower layer, each as ``file:line: rule``."""
    level = {member: index for index, layer in enumerate(layers) for member in layer.split()}
    found = []
    for name, targets in edges.items():
        for target, where in targets.items():
            if name in FRONT_DOORS or {name.split(".")[0], target.split(".")[0]} != {room}:
                continue
            if target == room:
                found.append(f"{where}: {name} imports its own room; import the module that defines the name")
                continue
            member, other = entry_of(name, level), entry_of(target, level)
            unlisted = [part for part in (member, other) if part not in level]
            if unlisted:
                found.append(f"{where}: {room}/{unlisted[0]} has no layer; add it to LAYERS in tests/test_structure.py")
            elif member != other and level[member] <= level[other]:
                found.append(f"{where}: {room}/{member} imports {target}, which is not in a lower layer")
    return found


def entry_of(name: str, level: Mapping[str, int]) -> str:
    """Return the longest entry of ``level`` that a module of a room is in; its first folder or file without any."""
    parts = name.split(".")[1:]
    entries = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((entry for entry in entries if entry in level), parts[0])


def test_no_import_cycle() -> None:
    edges = graph()
    edges[""] = {}  # the root's __init__ imports nothing: it names the public functions to type checkers
    assert cycle(edges) == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_inside_a_room_point_down(room: str) -> None:
    assert upward(room, LAYERS[room], graph()) == []


def test_no_folder_has_too_many_files() -> None:
    folders = {folder.parent for room in (*ROOMS, "tests") for folder in (ROOT / room).rglob("*.py")}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_the_rules_see_what_breaks_them() -> None:
    edges = {
        "runtime.text.a": {"runtime.load": "runtime/text/a.py:1"},
        "runtime.load": {"runtime.text.a": "runtime/load.py:2", "runtime.new": "runtime/load.py:3"},
        "runtime.kernels.edits.a": {"runtime.kernels": "runtime/kernels/edits/a.py:5"},
        "runtime.new": {"runtime": "runtime/new.py:4"},
    }
    assert cycle(edges) == [
        "runtime/text/a.py:1 imports runtime.load",
        "runtime/load.py:2 imports runtime.text.a",
    ]
    assert upward("runtime", LAYERS["runtime"], edges) == [
        "runtime/text/a.py:1: runtime/text imports runtime.load, which is not in a lower layer",
        "runtime/load.py:3: runtime/new has no layer; add it to LAYERS in tests/test_structure.py",
        "runtime/kernels/edits/a.py:5: runtime/kernels.edits imports runtime.kernels, which is not in a lower layer",
        "runtime/new.py:4: runtime.new imports its own room; import the module that defines the name",
    ]
