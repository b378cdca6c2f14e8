"""The folders of runtime/ import each other in one direction, and no modules import each other in a cycle."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from intaglio.tests.test_imports import imports_of

RUNTIME = Path(__file__).parents[2] / "runtime"
# From the bottom up: a folder or module imports only from lines above its own, type checkers' imports included.
WINGS = (
    ("numerics", "representation", "folder"),
    ("text", "graph"),
    ("kernels.edits",),
    ("kernels",),
    ("engine",),
    ("decoding", "sequence"),
    ("chat.sandbox",),
    ("chat",),
    ("generation", "tasks"),
    ("load",),
    ("measure", "lm_eval", "__init__"),
)
FLOOR = {wing: floor for floor, wings in enumerate(WINGS) for wing in wings}
MOST_FILES = 15


def modules() -> dict[str, set[str]]:
    """Return each module of runtime/, by its name in it, with the modules that it imports."""
    files = {module_name(path): path for path in sorted(RUNTIME.rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        package = ".".join(["intaglio", "runtime", *path.parent.relative_to(RUNTIME).parts])
        imported = set()
        for _, target in imports_of(path.read_text(encoding="utf-8"), package):
            inside = target.removeprefix("runtime").lstrip(".")
            if target.startswith("runtime."):
                imported.add(inside if inside in files else inside.rpartition(".")[0])
        found[name] = imported & set(files) - {name}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(RUNTIME).with_suffix("").parts
    return ".".join(parts[:-1]) if parts[-1] == "__init__" and len(parts) > 1 else ".".join(parts)


def wing_of(module: str) -> str:
    return next(wing for wing in (module, module.rpartition(".")[0]) if wing in FLOOR)


def test_no_import_points_up() -> None:
    wrong = {
        f"{name} imports {target}"
        for name, targets in modules().items()
        for target in targets
        if wing_of(target) != wing_of(name) and FLOOR[wing_of(target)] >= FLOOR[wing_of(name)]
    }
    assert wrong == set()


def test_no_file_takes_part_in_a_circle() -> None:
    TopologicalSorter(modules()).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("folder", sorted({path.parent for path in RUNTIME.rglob("*.py")}), ids=lambda p: p.name)
def test_no_folder_has_too_many_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
