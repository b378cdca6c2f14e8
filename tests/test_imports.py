"""The rooms of the house import only what they may."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from intaglio.tests.test_structure import ROOMS

ROOT = Path(__file__).parent.parent
PLUG_INS = {"interop/register"}
"""Folders whose files are no modules of the package: the wheel puts them into the namespaces of other frameworks."""
TORCH = {"torch"}
ONNX = {"onnx", "onnx_ir", "onnxscript"}
ORT = {"onnxruntime"}

# What a room must not import, anywhere in its files: other rooms by their name, packages by theirs.
FORBIDDEN = {
    "files": (set(ROOMS) - {"files"}) | TORCH | ONNX | ORT | {"transformers"},
    "devices": (set(ROOMS) - {"devices", "files", "runtime"}) | TORCH | ONNX | ORT | {"transformers"},
    "models": {"devices", "exporter", "runtime", "parity", "publishing", "serving", "cli", "interop"}
    | ONNX
    | ORT
    | {"transformers"},
    "exporter": {"runtime", "parity", "publishing", "serving", "cli", "interop"} | ORT | {"transformers"},
    "runtime": {"devices", "models", "exporter", "parity", "publishing", "serving", "cli", "interop"}
    | TORCH
    | ONNX
    | {"transformers"},
    "parity": {"exporter", "publishing", "serving", "cli", "interop"},
    "publishing": {"models", "exporter", "runtime", "parity", "serving", "cli", "interop"}
    | TORCH
    | ONNX
    | ORT
    | {"transformers"},
    "serving": (set(ROOMS) - {"serving", "files", "runtime"}) | TORCH | ONNX | ORT | {"transformers"},
    "cli": {"interop", "transformers"},
    "interop": {"models", "exporter", "runtime", "parity", "publishing", "serving"}
    | TORCH
    | ONNX
    | ORT
    | {"transformers"},
}
# The modules at the root serve every room, so they may lean on none.
ROOT_FORBIDDEN = (set(ROOMS) - {"files"}) | TORCH | ONNX | ORT | {"transformers"}


def imports_of(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, name) of every import; a sibling of the package ``intaglio`` by its name relative to that package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.lineno, node.module or ""
                continue
            inside = package.split(".")[: len(package.split(".")) - node.level + 1][1:]
            if node.module:
                yield node.lineno, ".".join([*inside, node.module])
            else:
                for alias in node.names:
                    yield node.lineno, ".".join([*inside, alias.name])


def wrong_imports(source: str, package: str, forbidden: set[str]) -> list[str]:
    found = []
    for line, name in imports_of(source, package):
        if name.split(".")[0] in forbidden:
            found.append(f"line {line}: {name}")
        if name.split(".")[0] == "intaglio":
            found.append(f"line {line}: {name} (siblings import each other relatively)")
    return found


def files_of(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    return [path for path in found if str(path.parent.relative_to(ROOT).as_posix()) not in PLUG_INS]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    found = {}
    for path in files_of(room):
        package = ".".join(["intaglio", *path.parent.relative_to(ROOT).parts])
        if wrong := wrong_imports(path.read_text(encoding="utf-8"), package, FORBIDDEN[room]):
            found[str(path.relative_to(ROOT))] = wrong
    assert found == {}


class _WithoutTypeCheckingBlocks(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse else self.generic_visit(node)


def test_the_root_modules_lean_on_no_room() -> None:
    """``__init__.py`` names the rooms to type checkers alone; at run time it imports them on first use."""
    found = {}
    for path in sorted(ROOT.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "__init__.py":
            tree = _WithoutTypeCheckingBlocks().visit(tree)
        if wrong := wrong_imports(ast.unparse(tree), "intaglio", ROOT_FORBIDDEN):
            found[path.name] = wrong
    assert found == {}


@pytest.mark.parametrize(
    ("source", "package", "wrong"),
    [
        ("import torch", "intaglio.runtime", ["line 1: torch"]),
        ("import onnx.helper as h", "intaglio.runtime", ["line 1: onnx.helper"]),
        ("def f():\n    from ..models import config", "intaglio.runtime", ["line 2: models"]),
        ("from ..models.config import X", "intaglio.runtime", ["line 1: models.config"]),
        ("from .. import models, errors", "intaglio.runtime", ["line 1: models"]),
        ("from ...models import x", "intaglio.runtime.deep", ["line 1: models"]),
        (
            "from intaglio.errors import X",
            "intaglio.runtime",
            ["line 1: intaglio.errors (siblings import each other relatively)"],
        ),
        ("from .models import x\nfrom . import torch\nimport torchless", "intaglio.runtime", []),
    ],
)
def test_the_rule_sees_every_way_of_importing(source: str, package: str, wrong: list[str]) -> None:
    assert wrong_imports(source, package, FORBIDDEN["runtime"]) == wrong


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``statement``."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(), cwd=ROOT.anchor
    )
    return set(done.stdout.split())


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import intaglio", TORCH | ONNX | ORT | {"numpy", "click", "rich"}),
        ("import intaglio.artifact, intaglio.errors", TORCH | ONNX | ORT | {"numpy"}),
        ("import intaglio.runtime", TORCH | ONNX | {"transformers"}),
        ("from intaglio.runtime import *", TORCH | ONNX | {"transformers"}),
        ("import intaglio.models", ONNX | ORT | {"transformers"}),
        ("import intaglio.cli.main", TORCH | ONNX | ORT | {"rich"}),
        ("import intaglio.interop.optimum_cli", TORCH | ONNX | ORT | {"numpy", "optimum", "transformers"}),
        (
            "from intaglio.cli.main import cli; [cli.get_command(None, v) for v in cli.list_commands(None)]",
            TORCH | ONNX | ORT | {"numpy"},
        ),
    ],
)
def test_what_an_import_does_not_load(statement: str, absent: set[str]) -> None:
    assert loaded_after(statement) & absent == set()
