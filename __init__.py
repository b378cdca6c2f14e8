"""Export Qwen2, Qwen2-MoE and EXAONE 4.0 to ONNX, quantize them, run them without torch, and check the copy.

    checkpoint -> models -> exporter -> artifact folder -> runtime -> text, labels, spans

``import intaglio`` loads nothing heavy. Each name below is imported with its package when it is first used: ``load``
needs no torch, ``export``, ``quantize`` and ``check`` need the extra ``export``.
"""

from typing import TYPE_CHECKING

from .errors import IntaglioError

if TYPE_CHECKING:
    from .exporter.export import export as export
    from .exporter.export import quantize as quantize
    from .exporter.quantize.options import QuantizeOptions as QuantizeOptions
    from .models.adapters.given import Adapter as Adapter
    from .parity.check import check as check
    from .parity.options import CheckOptions as CheckOptions
    from .parity.report.report import Report as Report
    from .publishing.pushing import push as push
    from .runtime import Embedder as Embedder
    from .runtime import QuestionAnswerer as QuestionAnswerer
    from .runtime import SequenceClassifier as SequenceClassifier
    from .runtime import TextGenerator as TextGenerator
    from .runtime import TokenClassifier as TokenClassifier
    from .runtime.load import load as load

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "CheckOptions",
    "Embedder",
    "IntaglioError",
    "QuantizeOptions",
    "QuestionAnswerer",
    "Report",
    "SequenceClassifier",
    "TextGenerator",
    "TokenClassifier",
    "__version__",
    "check",
    "export",
    "load",
    "push",
    "quantize",
]

_PACKAGES = {
    "exporter": ("Adapter", "QuantizeOptions", "export", "quantize"),
    "parity": ("CheckOptions", "Report", "check"),
    "publishing": ("push",),
    "runtime": ("Embedder", "QuestionAnswerer", "SequenceClassifier", "TextGenerator", "TokenClassifier", "load"),
}

if not TYPE_CHECKING:  # otherwise a type checker would accept every name

    def __getattr__(name: str) -> object:
        """Import ``name`` with its package (PEP 562).

        Raises:
            DependencyError: the package needs an extra that is not installed.
        """
        from importlib import import_module

        from .extras import export_extra

        for package, names in _PACKAGES.items():
            if name in names:
                with export_extra():
                    return getattr(import_module(f"{__name__}.{package}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
