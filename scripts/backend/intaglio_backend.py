"""The build backend: setuptools, and the library of kernels as a file of the package.

A wheel with the library is tagged py3-none-<platform>: any Python 3, one system and processor. Where the library cannot
be compiled, the wheel is tagged py3-none-any, the build logs the reason, and ONNX Runtime's kernels run instead. With
INTAGLIO_REQUIRE_KERNELS=1 in the environment, as for a release, that is an error. INTAGLIO_TARGET names another
platform (targets.py) to make the wheel for.
"""

import logging
import os
from pathlib import Path
from typing import ClassVar

import setuptools
import setuptools.build_meta
import setuptools.command.bdist_wheel
import setuptools.command.build
from compile_kernels import (
    KERNELS,
    CompileError,
    compile_library,
    find_cross_compiler,
    headers,
    library_name,
    sources,
)
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from targets import TARGETS, Target

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT: Path = KERNELS.parents[1]
REQUIRED = "INTAGLIO_REQUIRE_KERNELS"


def target() -> Target | None:
    """Return the platform that INTAGLIO_TARGET names; None for this one.

    Raises:
        SystemExit: there is no such platform.
    """
    name = os.environ.get("INTAGLIO_TARGET")
    if name and name not in TARGETS:
        raise SystemExit(f"intaglio: INTAGLIO_TARGET is {name}; use one of {', '.join(TARGETS)}")
    return TARGETS[name] if name else None


class Build(setuptools.command.build.build):
    """The build, with the kernels as its last step (``tool.setuptools.cmdclass`` of pyproject.toml)."""

    sub_commands = [*setuptools.command.build.build.sub_commands, ("build_kernels", None)]  # noqa: RUF012


class BuildKernels(setuptools.Command):
    """The step that compiles the kernels: into the build folder, or into the source tree if it is editable."""

    description = "compile the library of kernels"
    user_options: ClassVar[list[tuple[str, str, str]] | list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    @property
    def library(self) -> Path:
        """The file to compile."""
        package = ROOT if self.editable_mode else Path(str(self.build_lib), "intaglio")
        other = target()
        return package / "runtime" / "kernels" / str(library_name() if other is None else library_name(other.system))

    def run(self) -> None:
        self.library.unlink(missing_ok=True)  # of an earlier build
        try:
            other = target()
            if other is None:
                compile_library(self.library)
            else:
                compile_library(self.library, find_cross_compiler(other), other.system)
        except CompileError as error:
            if os.environ.get(REQUIRED, "0") not in ("", "0"):
                raise SystemExit(f"intaglio: the kernels cannot be compiled: {error}") from error
            logging.warning("intaglio: installed without its kernels, ONNX Runtime's run instead: %s", error)

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs to build the kernels."""
        files = [*sources(), *headers(), *Path(__file__).parent.glob("*.py")]
        return [path.relative_to(ROOT).as_posix() for path in files]

    def get_outputs(self) -> list[str]:
        """Return the files that were made."""
        return [str(self.library)] if self.library.exists() else []

    def get_output_mapping(self) -> dict[str, str]:
        """Return the outputs that are copies of source files: none."""
        return {}


class BdistWheel(setuptools.command.bdist_wheel.bdist_wheel):
    """The wheel, tagged for what is in it."""

    def run(self) -> None:
        self.run_command("build")
        step = self.get_finalized_command("build_kernels")
        if isinstance(step, BuildKernels) and step.library.exists():
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True  # to be installed where binary files are
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        found, other = super().get_tag()[2], target()
        return "py3", "none", found if other is None or found == "any" else other.wheel
