"""Distributions built from the source tree: complete, and without anything else of the repository."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

import intaglio
import pytest
from intaglio.runtime import kernels
from intaglio.tests.test_structure import ROOMS

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "runtime" / "kernels" / "native"
BACKEND = ROOT / "scripts" / "backend"
PLUG_INS = {"optimum/commands/register/register_intaglio.py": ROOT / "interop" / "register" / "register_intaglio.py"}
"""What the wheel puts into the namespaces of other frameworks."""
LIBRARY = f"intaglio/runtime/kernels/{kernels.LIBRARY}"
INFO = f"intaglio-{intaglio.__version__}.dist-info"
HAS_COMPILER = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
HAS_OPTIMUM = bool(list(distributions(name="optimum")))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")


def tree_modules() -> set[str]:
    """Return the modules of the root and of every room."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return {f"intaglio/{path.relative_to(ROOT).as_posix()}" for path in paths if path not in PLUG_INS.values()}


def tree_data() -> set[str]:
    """Return the data files beside the modules: texts, templates."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()]
    left = (".py", ".pyc", ".c", ".h", ".so", ".dylib", ".dll")
    data = [path for path in paths if path.suffix not in left and not path.name.startswith(".")]
    return {"intaglio/py.typed", *(f"intaglio/{path.relative_to(ROOT).as_posix()}" for path in data)}


def copy_tree(to: Path) -> Path:
    """Copy what a build reads, so that the build leaves nothing in the tree, and some files that it must not read."""
    files = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    files += [ROOT / name.removeprefix("intaglio/") for name in tree_modules() | tree_data()]
    files += [*NATIVE.rglob("*.[ch]"), *BACKEND.glob("*.py"), *PLUG_INS.values()]
    for path in files:
        (to / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to / path.relative_to(ROOT))
    for name in ("tests", "scripts", "benchmarks"):
        (to / name).mkdir(exist_ok=True)
        (to / name / "stray.py").write_text("raise SystemExit\n")
    return to


def build(kind: str, tree: Path, out: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a ``wheel``, an ``editable`` wheel or an ``sdist`` of a tree into ``out`` as an installer does."""
    return subprocess.run(
        [sys.executable, "-c", f"import intaglio_backend; intaglio_backend.build_{kind}({str(out)!r})"],
        cwd=tree,
        env={**os.environ, "CFLAGS": "-O1", "PYTHONPATH": str(tree / "scripts" / "backend"), **environment},
        check=check,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the tree."""
    out = tmp_path_factory.mktemp("wheel")
    build("wheel", copy_tree(tmp_path_factory.mktemp("tree")), out)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def code(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def metadata(wheel: zipfile.ZipFile, name: str = "METADATA") -> Message:
    return HeaderParser().parsestr(wheel.read(f"{INFO}/{name}").decode())


def test_the_wheel_holds_every_module_with_its_data_and_no_other_file(wheel: zipfile.ZipFile) -> None:
    assert code(wheel) - {LIBRARY} == tree_modules() | tree_data() | set(PLUG_INS)
    assert {"intaglio/parity/page/report.html.jinja", "intaglio/exporter/quantize/calibration.txt"} <= code(wheel)


@needs_compiler
def test_a_wheel_with_the_kernels_is_for_any_python_3_on_one_platform(wheel: zipfile.ZipFile) -> None:
    assert LIBRARY in code(wheel)
    assert re.fullmatch(r"py3-none-(?!any)\w+", metadata(wheel, "WHEEL")["Tag"])
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == "false"


def test_without_a_compiler_the_wheel_is_for_any_platform_and_says_what_it_lacks(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    done = build("wheel", tree, tmp_path, CC="no-such-compiler")
    assert "installed without its kernels, ONNX Runtime's run instead: the C compiler no-such-compiler" in done.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name == f"intaglio-{intaglio.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        assert code(wheel) == tree_modules() | tree_data() | set(PLUG_INS)
    done = build("wheel", tree, tmp_path, False, CC="no-such-compiler", INTAGLIO_REQUIRE_KERNELS="1")
    assert done.returncode != 0
    assert "intaglio: the kernels cannot be compiled: the C compiler no-such-compiler" in done.stderr


@needs_compiler
def test_an_editable_installation_compiles_the_kernels_in_the_tree(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    build("editable", tree, tmp_path)
    assert (tree / LIBRARY.removeprefix("intaglio/")).exists()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> tarfile.TarFile:
    out = tmp_path_factory.mktemp("sdist")
    build("sdist", copy_tree(tmp_path_factory.mktemp("tree")), out)
    (path,) = out.glob("*.tar.gz")
    return tarfile.open(path)


def test_a_source_distribution_holds_what_the_wheel_is_built_from(sdist: tarfile.TarFile) -> None:
    held = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in [*NATIVE.rglob("*.[ch]"), *BACKEND.glob("*.py"), *PLUG_INS.values()]
    }
    wanted |= {name.removeprefix("intaglio/") for name in tree_modules() | tree_data()}
    assert wanted <= held
    assert not {name for name in held if "stray" in name}


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {(ROOT / name.removeprefix("intaglio/")).parent for name in tree_modules()}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_only_one_name_becomes_importable(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in code(wheel) - set(PLUG_INS)} == {"intaglio"}


WITHOUT_EDITABLE_PLUG_INS = """
import sys
sys.path = [entry for entry in sys.path if not entry.startswith("__editable__")]
from optimum.commands.optimum_cli import main
main()
"""
"""optimum's command, without the plug-in of an editable installation of this tree, which would come twice."""


@pytest.mark.skipif(not HAS_OPTIMUM, reason="needs optimum")
def test_optimum_finds_the_plug_in(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EDITABLE_PLUG_INS, "export", "intaglio", "no-folder", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: no-folder: there is no such folder, and it is not a hub id either")


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    found = metadata(wheel)
    assert found["Name"] == "intaglio"
    assert found["Version"] == intaglio.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert "Apache License" in wheel.read(f"{INFO}/licenses/LICENSE").decode()
    assert "intaglio = intaglio.cli.main:main" in wheel.read(f"{INFO}/entry_points.txt").decode()
    extras = set(found.get_all("Provides-Extra") or [])
    assert {"cpu", "gpu", "export", "optimum", "dev"} <= extras


def test_inference_needs_neither_torch_nor_onnx(wheel: zipfile.ZipFile) -> None:
    base = [line for line in metadata(wheel).get_all("Requires-Dist") or [] if "extra ==" not in line]
    names = {re.split(r"[<>=]", line)[0].strip() for line in base}
    assert names == {"click", "huggingface_hub", "jinja2", "numpy", "rich", "safetensors", "tokenizers"}
