"""The error for a package that an extra would have installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import DependencyError

EXPORT_PACKAGES = frozenset({"torch", "onnx", "onnx_ir", "onnxscript"})


@contextmanager
def export_extra() -> Iterator[None]:
    """Guard imports that need torch or the ONNX packages.

    Raises:
        DependencyError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXPORT_PACKAGES:
            raise
        raise DependencyError(
            f"reading checkpoints needs the package {error.name}, which is not installed; "
            "install it with: pip install 'intaglio[export]'"
        ) from None


@contextmanager
def ray_extra() -> Iterator[None]:
    """Guard imports that need Ray.

    Raises:
        DependencyError: it is not installed, or without the libraries of Ray Serve and Ray Data.
    """
    try:
        yield
    except ImportError as error:
        raise DependencyError(
            f"running on several machines needs Ray with Serve and Data ({error}); "
            "install it with: pip install 'intaglio[cpu,ray]'"
        ) from None
