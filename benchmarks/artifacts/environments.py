"""A virtual environment for each peer, made the first time, with the packages that pip installs today.

    VENVS/onnxruntime-genai/bin/python, VENVS/OpenVINO/bin/python, ...

intaglio runs in the interpreter that runs the benchmark. llama-cpp-python is built from source, which takes a C++
compiler and some minutes.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

SEARCHED = Path(__file__).resolve().parents[2] / ".dev"  # holds the package intaglio, installed or not
TORCH = "torch==2.13.0"
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime-genai": (TORCH, "transformers", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai"),
    "OpenVINO": (TORCH, "optimum-intel", "nncf", "openvino", "openvino-tokenizers", "openvino-genai"),
    "llama.cpp": ("llama-cpp-python", "gguf"),
    "llama-server": ("--no-binary=llama-cpp-python", "llama-cpp-python", "gguf"),
    "CTranslate2": (TORCH, "transformers", "ctranslate2"),
    "transformers": (TORCH, "transformers", "safetensors"),
}
WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" if platform.machine() in ("x86_64", "AMD64") else ""
"""Virtual machines name AMX among the processor's features, and end a process that uses it."""

VARIABLES: Mapping[str, dict[str, str]] = {
    "llama-server": {
        "CFLAGS": WITHOUT_AMX,
        "CXXFLAGS": WITHOUT_AMX,
        "CMAKE_ARGS": "-DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON -DLLAMA_BUILD_UI=OFF "
        "-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAVA_BUILD=OFF",
    }
}
"""Of the installation: the source of llama-cpp-python holds llama.cpp's server, which is built for this processor."""
UNWANTED = "torchvision"  # some peers depend on it; nothing here uses it, and it needs a build that fits torch's
DONE = ".complete"


def process_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a benchmark's process: this one, ``variables``, and intaglio on the module path."""
    path = os.pathsep.join(filter(None, (str(SEARCHED), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **variables}


def pairs(options: Iterable[str]) -> dict[str, str]:
    """Return the values of NAME=VALUE options by their names.

    Raises:
        click.UsageError: an option has no "=".
    """
    found = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign:
            raise click.UsageError(f"{option!r} has no '='; write NAME=VALUE")
        found[name] = value
    return found


def interpreters(tools: Iterable[str], venvs: Path, chosen: Mapping[str, str]) -> dict[str, str]:
    """Return a Python for each tool: the ``chosen`` one, or its environment's; leave out what cannot be installed.

    Raises:
        click.UsageError: a Python was chosen for an unknown tool.
    """
    if unknown := set(chosen) - set(PACKAGES):
        raise click.UsageError(f"--python {min(unknown)}=...: unknown tool; use one of {', '.join(PACKAGES)}")
    found = {"intaglio": sys.executable}
    for tool in dict.fromkeys(tools):
        if tool in chosen:
            found[tool] = chosen[tool]
        elif tool != "intaglio":
            python = install(tool, venvs / tool)
            if python is not None:
                found[tool] = python
    return found


def install(tool: str, folder: Path) -> str | None:
    """Return the environment's Python once everything is installed; print why and return None if that fails.

    A link to an environment elsewhere is used as it is.
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
        done = subprocess.run(
            command,
            env={**os.environ, **VARIABLES.get(tool, {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            click.echo(f"{tool} is left out because it cannot be installed:\n{done.stdout[-1500:]}", err=True)
            return None
    (folder / DONE).touch()
    return str(python)
