"""The errors for packages that an extra would have installed."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

from .errors import DependencyError

EXPORT_PACKAGES = frozenset({"torch", "onnx", "onnx_ir", "onnxscript"})
SERVE_PACKAGES = frozenset({"h11", "prometheus_client", "pydantic", "starlette", "uvicorn"})


def export_extra() -> AbstractContextManager[None]:
    """Guard imports that need torch or the ONNX packages.

    Raises:
        DependencyError: one of them is not installed.
    """
    return _extra("export", "reading checkpoints", EXPORT_PACKAGES)


def serve_extra() -> AbstractContextManager[None]:
    """Guard imports that need the packages of the server.

    Raises:
        DependencyError: one of them is not installed.
    """
    return _extra("serve", "serving", SERVE_PACKAGES)


@contextmanager
def _extra(extra: str, purpose: str, packages: Collection[str]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise DependencyError(
            f"{purpose} needs the package {package}, which is not installed; "
            f"install it with: pip install 'intaglio[{extra}]'"
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
