"""What is built from the tree is the tree: every module with the data it reads, and nothing of the workshop."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import intaglio
import pytest

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "runtime" / "kernels" / "native"
ROOMS = ("models", "exporter", "runtime", "parity", "cli")
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel({out!r}))"


def tree_modules() -> set[str]:
    """The modules of the root and of every room."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return {f"intaglio/{path.relative_to(ROOT).as_posix()}" for path in paths}


def tree_data() -> set[str]:
    """What lies beside the modules of the rooms: texts, templates."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()]
    left = (".py", ".pyc", ".c", ".h", ".so")
    data = [path for path in paths if path.suffix not in left and not path.name.startswith(".")]
    return {"intaglio/py.typed", *(f"intaglio/{path.relative_to(ROOT).as_posix()}" for path in data)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the tree, so that the build leaves nothing in the tree itself."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    root = {f"intaglio/{name}" for name in ("pyproject.toml", "README.md", "LICENSE")}
    root |= {f"intaglio/{path.relative_to(ROOT).as_posix()}" for path in NATIVE.rglob("*.[ch]")}
    for name in sorted(tree_modules() | tree_data() | root):
        relative = name.removeprefix("intaglio/")
        (copy / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / relative, copy / relative)
    for name in ("tests", "scripts", "benchmarks"):
        (copy / name).mkdir()
        (copy / name / "stray.py").write_text("raise SystemExit\n")
    subprocess.run([sys.executable, "-c", BUILD.format(out=str(out))], cwd=copy, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_with_its_data_and_no_other_file(wheel: zipfile.ZipFile) -> None:
    code = {name for name in wheel.namelist() if ".dist-info/" not in name}
    compiled = {name for name in code if name.startswith("intaglio/runtime/kernels/_nbits.")}
    assert len(compiled) == (1 if shutil.which("cc") else 0)
    assert code - compiled == tree_modules() | tree_data()
    assert {"intaglio/parity/page/report.html.jinja", "intaglio/exporter/quantize/calibration.txt"} <= code


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {(ROOT / name.removeprefix("intaglio/")).parent for name in tree_modules()}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_only_one_name_becomes_importable(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {"intaglio"}


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    info = f"intaglio-{intaglio.__version__}.dist-info"
    metadata = HeaderParser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "intaglio"
    assert metadata["Version"] == intaglio.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "intaglio = intaglio.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert {"cpu", "gpu", "export", "optimum", "dev"} <= extras


def test_inference_needs_neither_torch_nor_onnx(wheel: zipfile.ZipFile) -> None:
    metadata = HeaderParser().parsestr(wheel.read(f"intaglio-{intaglio.__version__}.dist-info/METADATA").decode())
    base = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    names = {line.split(">")[0].split("=")[0].strip() for line in base}
    assert names == {"click", "huggingface_hub", "jinja2", "numpy", "rich", "safetensors", "tokenizers"}
