"""A virtual environment for each peer, made the first time, with the packages that pip installs today.

    VENVS/onnxruntime-genai/bin/python, VENVS/OpenVINO/bin/python, ...

intaglio runs in the interpreter that runs the benchmark. llama-cpp-python and ik-llama-cpp-python are built from source
for this processor, which takes a C++ compiler and some minutes (the latter half an hour); where the vector instructions
are limited to AVX2, the former is built for them, and the latter's wheel is.
"""

import ctypes
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

SEARCHED = Path(__file__).resolve().parents[2] / ".dev"  # holds the package intaglio, installed or not
TORCH = "torch==2.13.0"
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime-genai": (TORCH, "transformers", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai"),
    "OpenVINO": (TORCH, "optimum-intel", "nncf", "openvino", "openvino-tokenizers", "openvino-genai"),
    "llama.cpp": ("llama-cpp-python", "gguf"),
    "llama.cpp-avx2": ("--no-binary=llama-cpp-python", "llama-cpp-python", "gguf"),
    "ik_llama.cpp": ("ik-llama-cpp-python", "gguf"),
    "ik_llama.cpp-avx2": ("ik-llama-cpp-python", "gguf"),
    "llama-server": ("--no-binary=llama-cpp-python", "llama-cpp-python", "gguf"),
    "CTranslate2": (TORCH, "transformers", "ctranslate2"),
    "transformers": (TORCH, "transformers", "safetensors"),
}
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18  # of Linux on x86-64


def _grants_amx() -> bool:
    """Return whether Linux lets a process use AMX; some virtual machines name it and do not grant it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return True
    return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0)


def _compiled_with(options: str) -> dict[str, str]:
    return {"CFLAGS": options, "CXXFLAGS": options}


GRANTED = _grants_amx()
NOT_BEYOND = {} if GRANTED else _compiled_with("-mno-amx-tile -mno-amx-int8 -mno-amx-bf16")
"""What is built for the processor's own features would be ended at its first tile where they are not granted."""

WITH_AMX = _compiled_with("-fno-dse -fno-tree-dse") if GRANTED else NOT_BEYOND
"""gcc 12.2 believes that LDTILECFG reads 8 of its 64 bytes, and drops the stores of the others: llama.cpp would be
ended there too."""

BUILT_ANEW = {"PIP_NO_CACHE_DIR": "1"}
"""pip keeps the wheels that it builds, and takes one of them again whatever options it was built with."""

VARIABLES: Mapping[str, dict[str, str]] = {
    "llama.cpp": BUILT_ANEW | WITH_AMX,
    "llama-server": {
        **BUILT_ANEW,
        **WITH_AMX,
        "CMAKE_ARGS": "-DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON -DLLAMA_BUILD_UI=OFF "
        "-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAVA_BUILD=OFF",
    },
    "llama.cpp-avx2": {
        **BUILT_ANEW,
        "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "
        "-DGGML_AVX512=OFF -DLLAVA_BUILD=OFF",
    },
    # Its libraries lie side by side, and its build does not tell them so.
    "ik_llama.cpp": BUILT_ANEW | NOT_BEYOND | {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DCMAKE_INSTALL_RPATH=$ORIGIN"},
}
"""Of the installation: the source of llama-cpp-python holds llama.cpp's server, which is built for this processor."""
COMMON = "vendor/ik_llama.cpp/common"
ABSENT: Mapping[str, Mapping[str, str]] = {
    "ik_llama.cpp": {
        f"{COMMON}/cmake/build-info-gen-cpp.cmake": "",
        f"{COMMON}/build-info.cpp": "int LLAMA_BUILD_NUMBER = 0;\n"
        + "".join(f'char const *LLAMA_{name} = "";\n' for name in ("COMMIT", "COMPILER", "BUILD_TARGET")),
    }
}
"""Files that the package's source refers to and lacks; a tool that is named here is built from its source."""
UNWANTED = "torchvision"  # some peers depend on it; nothing here uses it, and it needs a build that fits torch's
DONE = ".complete"
PIP = ("-m", "pip", "-q", "--disable-pip-version-check")


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
    packages = list(PACKAGES[tool])
    try:
        _run(tool, sys.executable, "-m", "venv", "--clear", str(folder))
        if tool in ABSENT:
            packages[0] = str(_completed_source(tool, python, folder / "source"))
        _run(tool, str(python), *PIP, "install", *packages)
        _run(tool, str(python), *PIP, "uninstall", "-y", UNWANTED)
    except subprocess.CalledProcessError as error:
        click.echo(f"{tool} is left out because it cannot be installed:\n{error.stdout[-1500:]}", err=True)
        return None
    (folder / DONE).touch()
    return str(python)


def _run(tool: str, *command: str) -> None:
    """Run a command of the installation.

    Raises:
        subprocess.CalledProcessError: it failed; with what it printed.
    """
    variables = {**os.environ, **VARIABLES.get(tool, {})}
    subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)


def _completed_source(tool: str, python: Path, folder: Path) -> Path:
    """Unpack the source of a tool's first package in ``folder``, and write the files that it lacks.

    Raises:
        subprocess.CalledProcessError: it cannot be downloaded.
    """
    package = PACKAGES[tool][0]
    _run(tool, str(python), *PIP, "download", "--no-deps", f"--no-binary={package}", "-d", str(folder), package)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    for name, text in ABSENT[tool].items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return source
