"""The platforms that a wheel with the library of kernels is for, and how one machine compiles for all of them.

Zig's C compiler (``pip install ziglang``) has the headers and libraries of every target.
"""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A platform.

    Attributes:
        name: what it is called on the command line.
        system: as in ``sys.platform``.
        zig: what Zig calls it, with the oldest version of the system that the library runs on.
        wheel: the platform in the tag of a wheel.
    """

    name: str
    system: str
    zig: str
    wheel: str

    def compiler(self) -> list[str] | None:
        """Return the command of Zig's C compiler for this platform; None where there is no Zig."""
        found = find_zig()
        # Zig checks for undefined behaviour unless it optimizes, with a library that is not linked.
        return None if found is None else [found, "cc", "-target", self.zig, "-fno-sanitize=undefined"]


TARGETS = {
    target.name: target
    for target in (
        Target("linux-x86_64", "linux", "x86_64-linux-gnu.2.28", "manylinux_2_28_x86_64"),
        Target("linux-aarch64", "linux", "aarch64-linux-gnu.2.28", "manylinux_2_28_aarch64"),
        Target("macos-x86_64", "darwin", "x86_64-macos.11.0", "macosx_11_0_x86_64"),
        Target("macos-arm64", "darwin", "aarch64-macos.11.0", "macosx_11_0_arm64"),
        Target("windows-x86_64", "win32", "x86_64-windows-gnu", "win_amd64"),
        Target("windows-arm64", "win32", "aarch64-windows-gnu", "win_arm64"),
    )
}


def find_zig() -> str | None:
    """Return the path of Zig: a program, or that of the package ``ziglang``; None where there is neither."""
    if found := shutil.which("zig"):
        return found
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        return None
    return shutil.which("zig", path=Path(package.origin).parent)
