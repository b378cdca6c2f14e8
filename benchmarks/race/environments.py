"""A virtual environment for each tool, made the first time: what is measured is what pip installs.

    VENVS/onnxruntime-genai/bin/python, VENVS/OpenVINO/bin/python, ...

intaglio runs in the interpreter that runs runtime.py. llama-cpp-python is built from its source, which takes a C++
compiler and some minutes.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

TORCH = "torch==2.13.0"
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime-genai": (TORCH, "transformers", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai"),
    "OpenVINO": (TORCH, "optimum-intel", "nncf", "openvino", "openvino-tokenizers", "openvino-genai"),
    "llama.cpp": ("llama-cpp-python", "gguf"),
    "CTranslate2": (TORCH, "transformers", "ctranslate2"),
    "transformers": (TORCH, "transformers", "safetensors"),
}
UNWANTED = "torchvision"  # comes along with some, needs a build that fits torch's, and nothing here needs it
DONE = ".complete"


def interpreters(tools: Iterable[str], venvs: Path, given: Mapping[str, str]) -> dict[str, str]:
    """A Python for each tool: the one that was given, or its environment's. Tools that cannot be installed are missing.

    Raises:
        click.UsageError: a Python was given for a tool that there is not.
    """
    if unknown := set(given) - set(PACKAGES):
        raise click.UsageError(f"--python {min(unknown)}=...: no such tool; known: {', '.join(PACKAGES)}")
    found = {"intaglio": sys.executable}
    for tool in dict.fromkeys(tools):
        if tool in given:
            found[tool] = given[tool]
        elif tool != "intaglio":
            python = install(tool, venvs / tool)
            if python is not None:
                found[tool] = python
    return found


def install(tool: str, folder: Path) -> str | None:
    """The environment's Python, once everything is installed; None, with a message, where that fails.

    A link to an environment that lies elsewhere is taken as it is.
    """
    python = folder / "bin" / "python"
    if folder.is_symlink() or (folder / DONE).is_file():
        return str(python)
    click.echo(f"{tool}: making {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES[tool]],
        [str(python), "-m", "pip", "uninstall", "-q", "-y", UNWANTED],
    ]
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            click.echo(f"{tool} is left out, since it cannot be installed:\n{done.stdout[-1500:]}", err=True)
            return None
    (folder / DONE).touch()
    return str(python)
