"""Python for 64-bit ARM on x86-64 Linux, and the kernels compiled for it: to test them without an ARM processor.

    python scripts/backend/arm.py set-up            downloads, once, and compiles the kernels if they changed
    python scripts/backend/arm.py check             says why `run` cannot run here, if it cannot
    python scripts/backend/arm.py run ARGUMENTS     runs ARM Python with these arguments

Everything lies in one folder, which the environment variable INTAGLIO_ARM names (~/.cache/intaglio-arm), and nothing is
installed in the system: qemu-user and Python are Debian's packages, which apt downloads from this machine's mirror and
verifies, and dpkg-deb unpacks; the wheels are those for ARM from pip's index. The C compiler is aarch64-linux-gnu-gcc
or, where that is missing, zig's from the wheel `ziglang`.

An emulator computes what a processor does, and says nothing about its speed.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from compile_kernels import CompileError, compile_library, headers, library_name, sources

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "build" / "arm" / library_name("linux")
SUITE = "trixie"
"""Debian 13: older qemu-user ends with a segmentation fault when it loads ONNX Runtime."""
PACKAGES = ("python3:arm64", "libstdc++6:arm64", "qemu-user:amd64")
PYTHON = "3.13"  # of SUITE
EMULATOR = "qemu-aarch64"
WHEELS = ["numpy", "onnxruntime", "onnx", "tokenizers", "safetensors", "pytest", "jinja2", "click", "rich"]
WHEELS += ["huggingface_hub", "llguidance", "regex"]
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
GLIBC = "2.28"  # of the wheel manylinux_2_28_aarch64
CPU = "max,pauth-impdef=on"
"""Every instruction; addresses signed by another algorithm than ARM's, which takes most of the time to emulate."""


class ArmError(Exception):
    """The environment cannot be made; the message says why."""


def folder() -> Path:
    """Return the folder of the environment."""
    named = os.environ.get("INTAGLIO_ARM")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "intaglio-arm"


def missing() -> str | None:
    """Return why ARM Python cannot run here, or None."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return f"ARM is emulated on x86-64 Linux alone, and this is {sys.platform} on {platform.machine()}"
    if not (folder() / "complete").exists():
        return f"{folder()} has no ARM Python; scripts/test-arm downloads it"
    return None


def set_up() -> None:
    """Download and unpack what is missing, and compile the kernels unless they are newer than every source.

    Raises:
        ArmError: apt, dpkg-deb or pip is missing or fails.
        CompileError: The compiler fails.
    """
    if not (folder() / "complete").exists():
        for name in ("apt-get", "dpkg-deb"):
            if shutil.which(name) is None:
                raise ArmError(f"{name} was not found; the packages of ARM Python are Debian's")
        shutil.rmtree(folder(), ignore_errors=True)
        _unpack_packages(_downloaded_packages())
        _install_wheels()
        (folder() / "complete").touch()
    made_of = [*sources(), *headers(), Path(__file__), Path(__file__).with_name("compile_kernels.py")]
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime <= max(path.stat().st_mtime for path in made_of):
        compile_library(LIBRARY, _compiler(), "linux")


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs ARM Python."""
    root = folder() / "root"
    emulator = [str(root / "usr/bin" / EMULATOR), "-L", str(root), "-cpu", CPU]
    return [*emulator, str(root / f"usr/bin/python{PYTHON}"), *arguments]


def environment() -> Mapping[str, str]:
    """Return what ARM Python needs in its environment: its own files, this repository, and the kernels for ARM."""
    return {
        "PYTHONHOME": str(folder() / "root/usr"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / ".dev"), str(folder() / "wheels")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "INTAGLIO_KERNELS_LIBRARY": str(LIBRARY),
    }


def _downloaded_packages() -> list[Path]:
    """Download PACKAGES and what they depend on, with apt's own check of signatures and hashes."""
    apt = folder() / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()  # nothing is installed
    (apt / "sources.list").write_text(f"deb [signed-by={KEYS}] {_mirror()} {SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "amd64",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "APT::Keep-Downloaded-Packages": "true",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "-q", "update"])
    _run(["apt-get", *options, "-q", "-y", "--download-only", "install", *PACKAGES])
    return sorted((apt / "cache/archives").glob("*.deb"))


KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _mirror() -> str:
    """Return the address of Debian's archive that this machine's apt is set to.

    Raises:
        ArmError: apt has none.
    """
    wanted = "$(REPO_URI) $(ORIGIN) $(LABEL)"
    listed = _run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]).splitlines()
    found = [line.split()[0] for line in listed if line.split()[1:] == ["Debian", "Debian"]]
    if not found:
        raise ArmError("apt's lists have no archive of Debian; run apt-get update, on Debian")
    return found[0]


def _unpack_packages(packages: Sequence[Path]) -> None:
    root = folder() / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(root)])
    for emulator in (root / "usr/bin").glob("qemu-*"):
        if emulator.name != EMULATOR:  # 400 MB
            emulator.unlink()
    shutil.rmtree(folder() / "apt")


def _install_wheels() -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    abis = [word for name in ("cp" + PYTHON.replace(".", ""), "abi3", "none") for word in ("--abi", name)]
    options = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms, *abis]
    _run([*pip, str(folder() / "wheels"), *options, *WHEELS])
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        _run([*pip, str(folder() / "zig"), "ziglang"])


def _compiler() -> list[str]:
    if shutil.which("aarch64-linux-gnu-gcc") is not None:
        return ["aarch64-linux-gnu-gcc"]
    return [str(folder() / "zig/ziglang/zig"), "cc", "-target", f"aarch64-linux-gnu.{GLIBC}"]


def _run(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArmError(f"{' '.join(words)}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def main(arguments: Sequence[str]) -> None:
    """Set up, check, or become ARM Python."""
    if not arguments or arguments[0] not in ("set-up", "check", "run"):
        sys.exit(str(__doc__))
    if arguments[0] == "set-up":
        try:
            set_up()
        except (ArmError, CompileError) as error:
            sys.exit(f"arm: {error}")
        return
    if reason := missing():
        sys.exit(f"arm: {reason}")
    if arguments[0] == "run":
        words = command(arguments[1:])
        os.execve(words[0], words, {**os.environ, **environment()})


if __name__ == "__main__":
    main(sys.argv[1:])
