"""An environment for each runtime, made the first time by pip or npm, with the versions that are named here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNNERS = Path(__file__).parent / "runners"
STAMP = ".packages"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

ORT = "onnxruntime==1.32.0"
NUMPY = "numpy==2.4.6"
INTAGLIO = ("click", "jinja2>=3.1.6,<3.2", "rich", "safetensors")
PYTHON: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "genai": (("onnxruntime-genai==0.18.0", ORT, NUMPY, "huggingface_hub==2.4.0"),),
    "onnxruntime": ((ORT, NUMPY, "tokenizers==0.23.3"),),
    "optimum": (
        ("torch==2.13.0",),
        ("optimum==2.1.0", "optimum-onnx==0.1.0", "transformers==4.57.6", ORT, NUMPY, *INTAGLIO),
    ),
    "lm_eval": (("lm-eval[api]==0.4.13", "transformers==5.24.0", "tokenizers==0.23.3", ORT, NUMPY, *INTAGLIO),),
    "tools": (
        ("onnx==1.23.2", "onnx-ir==1.1.0", "onnxscript==0.7.2", "onnxsim==0.8.1", "onnxslim==0.1.98", ORT, NUMPY),
    ),
}
"""Packages by environment; each group is installed by one call of pip, in order."""
NODE: Mapping[str, tuple[str, ...]] = {
    "js": ("@huggingface/transformers@4.3.2", "playwright-core@1.65.1"),
    "openai_js": ("openai@7.59.0",),
}
"""Packages of Node by environment; transformers.js brings onnxruntime-node, onnxruntime-web and a tokenizer."""


class UnavailableError(Exception):
    """An environment that cannot be made here; the message says why."""


@dataclass(frozen=True)
class Runtime:
    """A runtime of the matrix.

    Attributes:
        title: its name on the page.
        environment: a key of ``PYTHON``, or "js".
        runner: the program in ``runners/``.
        browser: true if it needs Chromium.
        wasm: true if ONNX Runtime's kernels for WebAssembly run.
        alone: true if the runner takes the likeliest token, and reads no settings of generation.
    """

    title: str
    environment: str
    runner: str
    browser: bool = False
    wasm: bool = False
    alone: bool = False


RUNTIMES: Mapping[str, Runtime] = {
    "genai": Runtime("onnxruntime-genai", "genai", "genai.py"),
    "optimum": Runtime("optimum", "optimum", "optimum.py"),
    "transformers_node": Runtime("transformers.js, Node", "js", "transformers_node.mjs"),
    "transformers_web": Runtime("transformers.js, Chromium", "js", "transformers_web.mjs", browser=True, wasm=True),
    "onnxruntime": Runtime("ONNX Runtime, Python", "onnxruntime", "onnxruntime.py", alone=True),
    "onnxruntime_node": Runtime("ONNX Runtime, Node", "js", "onnxruntime_node.mjs", alone=True),
    "onnxruntime_web": Runtime("ONNX Runtime, wasm", "js", "onnxruntime_web.mjs", wasm=True, alone=True),
}


def cache_folder() -> Path:
    """Return the folder of the environments."""
    return Path(os.environ.get("INTAGLIO_INTEROP") or Path.home() / ".cache" / "intaglio" / "interop")


def command(runtime: Runtime) -> list[str]:
    """Return the command that starts a runtime's program, without its two arguments; make the environment first.

    Raises:
        UnavailableError: the environment cannot be made, or there is no Chromium.
    """
    if runtime.browser and chromium() is None:
        raise UnavailableError(f"no Chromium on the PATH ({', '.join(CHROMIUMS)})")
    if runtime.environment == "js":
        folder = node_environment()
        for file in RUNNERS.iterdir():  # bare imports are resolved from the program's own folder upwards
            if file.suffix in (".mjs", ".html"):
                shutil.copyfile(file, folder / file.name)
        return [_node("node"), str(folder / runtime.runner)]
    # -P: the program's folder is not searched for modules, where onnxruntime.py would be found for onnxruntime
    return [str(python_environment(runtime.environment)), "-P", str(RUNNERS / runtime.runner)]


def variables() -> dict[str, str]:
    """Return the environment variables of a runtime's program."""
    own = {"PYTHONPATH": str(ROOT / ".dev"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **own, "CHROMIUM": chromium() or ""}


def chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def python_environment(name: str) -> Path:
    """Return the Python of an environment; make it where it is not there with these packages."""
    folder = cache_folder() / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    groups = PYTHON[name]
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries=1", "--timeout=10"]
    commands = [[sys.executable, "-m", "venv", "--clear", str(folder)], *([*install, *group] for group in groups)]
    _make(folder, "\n".join(" ".join(group) for group in groups), commands)
    return python


def node_command(name: str, program: Path) -> list[str]:
    """Return the command of a program for Node, in an environment; make that first.

    Raises:
        UnavailableError: it cannot be made.
    """
    # bare imports are resolved from the program's own folder upwards
    copy = shutil.copyfile(program, node_environment(name) / program.name)
    return [_node("node"), str(copy)]


def node_environment(name: str = "js") -> Path:
    """Return the folder with the node_modules; make it where it is not there with these packages."""
    folder = cache_folder() / name
    npm = [
        _node("npm"),
        "install",
        "--prefix",
        str(folder),
        "--ignore-scripts",  # onnxruntime-node's would download the libraries of CUDA
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        "--fetch-retries=1",
    ]
    _make(folder, "\n".join(NODE[name]), [[*npm, *NODE[name]]])
    return folder


def _node(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(f"{program} is not on the PATH")
    return found


def _make(folder: Path, packages: str, commands: Sequence[Sequence[str]]) -> None:
    """Run the commands that make an environment, unless its stamp names these packages or it is a link.

    Raises:
        UnavailableError: a command fails; the message has the end of its output.
    """
    stamp = folder / STAMP
    if folder.is_symlink() or (stamp.is_file() and stamp.read_text(encoding="utf-8") == packages):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for one in commands:
        done = subprocess.run(one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            lines = done.stdout.strip().splitlines() or [f"{one[0]} failed"]
            reason = next((line for line in reversed(lines) if "Error:" in line), lines[-1])
            raise UnavailableError(f"{folder.name} cannot be installed: {reason}")
    stamp.write_text(packages, encoding="utf-8")
