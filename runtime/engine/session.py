"""A loaded graph: what it runs on, and the errors of running it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ...artifact import Manifest
from ...contract import MASK_CHECK
from ...errors import ArtifactError, InputError, PromptError, UnsupportedError, first_line
from ...machine import gpu_memory
from ..kernels.edits.int8_cache import OPERATOR as INT8_CACHE
from ..kernels.edits.int8_cache import row_bytes
from . import sizes
from .onnxruntime import is_out_of_memory, provider
from .small_graphs import SmallGraphs

Device = Literal["cpu", "cuda"]
Kernels = Literal["auto", "onnxruntime"]
KVCache = Literal["exact", "int8", "auto"]


@dataclass(frozen=True)
class Session:
    """A loaded graph, which several threads may run at once.

    Attributes:
        ort: the module ``onnxruntime``.
        raw: the ``onnxruntime.InferenceSession``.
        windowed: sliding layers take buffers of exactly ``graph.sliding.window_capacity``; their past cannot grow.
        intaglio_kernels: the operators that intaglio's kernels compute; ONNX Runtime's compute all others.
        kv_cache_reason: why the KV cache has its element type, where ``kv_cache="auto"`` chose it; None otherwise.

    Running raises PromptError where memory does not suffice, UnsupportedError where target ``ort`` is given a mask that
    is not padded on the right, and ArtifactError where ONNX Runtime refuses the graph.
    """

    folder: Path
    manifest: Manifest
    device: Device
    threads: int
    ort: Any
    raw: Any
    windowed: bool = False
    intaglio_kernels: tuple[str, ...] = ()
    kv_cache_reason: str | None = None

    def __repr__(self) -> str:
        return f"<Session {self.description}>"

    @property
    def description(self) -> str:
        """The model, its size and where it runs, in one line."""
        manifest = self.manifest
        parameters = sum(prod(tensor.shape) for tensor in manifest.tensors.values() if tensor.sources)
        parts = [f"{manifest.family} {manifest.precision}"]
        if parameters:
            parts.append(f"{_abbreviated(parameters)} parameters")
        threads = f" with {self.threads} thread{'' if self.threads == 1 else 's'}" if self.device == "cpu" else ""
        parts.append(f"{self.device}{threads}")
        parts.append(f"{'intaglio' if self.intaglio_kernels else 'ONNX Runtime'}'s kernels")
        if self.cache_dtype == "int8":
            parts.append("int8 KV cache")
        return ", ".join(parts)

    @property
    def cache_dtype(self) -> str:
        """The element type of the KV cache."""
        return "int8" if INT8_CACHE in self.intaglio_kernels else self.manifest.model.cache_dtype

    @property
    def cache_columns(self) -> int:
        """Elements of the key or value of one token and head: E, and in an int8 cache the bytes of its scale."""
        facts = self.manifest.model
        return row_bytes(facts) if self.cache_dtype == "int8" else facts.head_dim

    @property
    def cache_bytes(self) -> Callable[[int], int]:
        """From the tokens of a sequence to the bytes of its KV cache; the function does not hold the session."""
        return partial(sizes.cache_bytes, self.manifest.model, windowed=self.windowed, int8=self.cache_dtype == "int8")

    @cached_property
    def small_graphs(self) -> SmallGraphs:
        """The graphs by which the memory of a GPU is allocated and edited."""
        return SmallGraphs(self.ort, self.device, provider(self.device), self._failure)

    @property
    def memory_name(self) -> str:
        """What the KV cache takes, for messages."""
        found = None if self.device == "cpu" else gpu_memory()
        return "memory" if found is None else f"memory on {found.name}"

    def free_gpu_memory(self, needed: int) -> int | None:
        """Return the free bytes of the GPU, None where they are unknown; freed memory is returned to it if need be."""
        found = gpu_memory()
        if found is not None and found.free < needed:
            self.small_graphs.trim()
            found = gpu_memory()
        return None if found is None else found.free

    def release_unused(self) -> None:
        """Return the GPU's memory of what was freed to it; on the CPU nothing is kept."""
        if self.device != "cpu":
            self.small_graphs.trim()

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        """Run the graph on host arrays; for passes that share no state."""
        try:
            results: list[NDArray[Any]] = self.raw.run(list(outputs), dict(feeds))
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise self._failure(error) from error
        return results

    def run_values(self, feeds: Mapping[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        """Run the graph on OrtValues, whose types may be ones that numpy lacks."""
        try:
            results: list[Any] = self.raw.run_with_ort_values(list(outputs), dict(feeds))
        except Exception as error:  # as above
            raise self._failure(error) from error
        return results

    def run_bound(self, binding: Any) -> None:
        """Run the graph on the inputs and outputs of an IOBinding."""
        try:
            self.raw.run_with_iobinding(binding)
        except Exception as error:  # as above
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> InputError:
        reason = first_line(error)
        if is_out_of_memory(error):
            return PromptError(f"not enough memory to run the model ({reason}); give less text, or fewer texts at once")
        if MASK_CHECK in str(error):
            return UnsupportedError(
                f"{self.folder}: a row of attention_mask is not ones and then zeros, and an artifact of target 'ort' "
                "takes padding on the right only; pad on the right, or export the model with --target standard"
            )
        return ArtifactError(
            f"{self.folder}: ONNX Runtime failed while running the model ({reason}); "
            "check the artifact with `intaglio verify`"
        )


def _abbreviated(count: int) -> str:
    """Write a count with a unit: 494M, 1.3B."""
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{suffix}" if count < 10 * unit else f"{count / unit:.0f}{suffix}"
    return str(count)
